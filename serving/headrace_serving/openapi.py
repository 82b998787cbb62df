"""The API's description: each model's request with its real fields, and an example that works when it is pasted.

The hot route reads no Python models, so FastAPI cannot describe it; this module writes those operations from the same
declarations that validation is compiled from, and merges them into FastAPI's document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.fields import Field, FieldType
from headrace_serving.limits import Limits
from headrace_serving.requests import RequestSchema

Json = dict[str, Any]

_PROBLEM: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string", "description": "What was required, what came, what to do."},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "row": {"type": ["integer", "null"]},
                            "field": {"type": "string"},
                            "required": {"type": "string"},
                            "got": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}
_PROBLEMS = {
    "400": "The body is not a JSON object.",
    "404": "No such model or view.",
    "413": "The body or the batch is over its limit.",
    "422": "A field is missing, unknown, mistyped or outside its contract.",
    "429": "As many requests are in flight as the service takes.",
    "503": "The store is lost, the deadline passed, or the model has no bundle that fits its definition.",
}


def field_schema(field: Field) -> Json:
    """A field's JSON schema.

    >>> import headrace.fields as f
    >>> field_schema(f.int64(ge=0, nullable=True))
    {'type': ['integer', 'null'], 'format': 'int64', 'minimum': 0}
    """
    kind, form = {
        FieldType.STRING: ("string", None),
        FieldType.INT64: ("integer", "int64"),
        FieldType.FLOAT64: ("number", "double"),
        FieldType.BOOLEAN: ("boolean", None),
        FieldType.TIMESTAMP: ("string", "date-time"),
    }[field.type]
    schema: Json = {"type": [kind, "null"] if field.nullable else kind}
    if form is not None:
        schema["format"] = form
    if field.type is FieldType.TIMESTAMP:
        schema = {"anyOf": [schema, {"type": "integer", "description": "microseconds since 1970"}]}
    if field.ge is not None:
        schema["minimum"] = field.ge
    if field.le is not None:
        schema["maximum"] = field.le
    if field.one_of is not None:
        schema["enum"] = [*field.one_of, None] if field.nullable else list(field.one_of)
    if field.description:
        schema["description"] = field.description
    return schema


def field_example(field: Field) -> object:
    """A value that the field's contract takes.

    >>> import headrace.fields as f
    >>> field_example(f.string(one_of=["EWR", "JFK"])), field_example(f.float64(ge=2.5)), field_example(f.int64(le=-3))
    ('EWR', 2.5, -3)
    """
    if field.one_of is not None:
        return field.one_of[0]
    match field.type:
        case FieldType.STRING:
            return "example"
        case FieldType.BOOLEAN:
            return True
        case FieldType.TIMESTAMP:
            return "2024-01-31T12:00:00Z"
        case FieldType.INT64 | FieldType.FLOAT64:
            usual: float = 1 if field.type is FieldType.INT64 else 1.0
            low = usual if field.ge is None else max(usual, field.ge)
            return low if field.le is None else min(low, field.le)


def row_schema(schema: RequestSchema) -> Json:
    """The JSON schema of one row of a model's requests."""
    row = object_schema(schema.fields)
    row["required"] = [name for name in row["required"] if name != schema.time]
    text = "The moment as of which features are read; by default the service's clock."
    row["properties"][schema.time]["description"] = f"{schema.fields[schema.time].description} {text}".strip()
    for name, field in schema.others.items():
        row["properties"][name] = field_schema(field) | {"description": "Not used by this model; it may be sent."}
    return row


def row_example(schema: RequestSchema) -> Json:
    """A row that the service takes: every field but the time, which then is now."""
    return {name: field_example(field) for name, field in schema.fields.items() if name != schema.time}


def object_schema(fields: Mapping[str, Field]) -> Json:
    """The JSON schema of an object of these fields and no others."""
    return {
        "type": "object",
        "properties": {name: field_schema(field) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if not field.nullable],
        "additionalProperties": False,
    }


def predict_operation(model: str, description: str, schema: RequestSchema, limits: Limits) -> Json:
    """``POST /v1/models/{model}/predict``, for one model."""
    row = row_schema(schema)
    include: Json = {
        "type": "array",
        "items": {"type": "string", "enum": ["features"]},
        "description": "More to answer with: `features` gives each feature's value, and its age in seconds.",
    }
    single = {**row, "properties": {**row["properties"], "include": include}}
    rows: Json = {"type": "array", "items": row, "minItems": 1, "maxItems": limits.batch_rows}
    batch: Json = {
        "type": "object",
        "properties": {"rows": rows, "include": include},
        "required": ["rows"],
        "additionalProperties": False,
    }
    example = row_example(schema)
    return {
        "post": {
            "tags": ["predict"],
            "summary": f"Predict with {model}",
            "description": description,
            "operationId": f"predict_{model}",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [single, batch]},
                        "examples": {
                            "one row": {"value": example},
                            "many rows": {"value": {"rows": [example, example]}},
                            "with features": {"value": {"rows": [example], "include": ["features"]}},
                        },
                    }
                },
            },
            "responses": {"200": _answer("The predictions, in the order of the rows.", _predictions()), **_problems()},
        }
    }


def features_operation(views: Mapping[str, Mapping[str, Field]], limits: Limits) -> Json:
    """``POST /v1/features``, with one variant per view, whose entity keys are given."""
    variants, examples = [], {}
    for name, fields in views.items():
        keys = {"type": "array", "items": object_schema(fields), "minItems": 1, "maxItems": limits.batch_rows}
        at = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}, {"type": "null"}]}
        variants.append(
            {
                "title": name,
                "type": "object",
                "properties": {"view": {"const": name}, "keys": keys, "at": at},
                "required": ["view", "keys"],
                "additionalProperties": False,
            }
        )
        examples[name] = {
            "value": {"view": name, "keys": [{key: field_example(field) for key, field in fields.items()}]}
        }
    features: Json = {
        "type": "object",
        "properties": {
            "view": {"type": "string"},
            "version": {"type": "integer"},
            "at": {"type": "string", "format": "date-time"},
            "entities": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": {"type": "object"},
                        "found": {"type": "boolean"},
                        "ahead": {"type": "boolean"},
                        "age_s": {"type": ["number", "null"]},
                        "features": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
                    },
                },
            },
        },
    }
    return {
        "post": {
            "tags": ["features"],
            "summary": "Read features of entities",
            "operationId": "read_features",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"oneOf": variants}, "examples": examples}},
            },
            "responses": {"200": _answer("The entities' features, in the order of the keys.", features), **_problems()},
        }
    }


def _predictions() -> Json:
    prediction: Json = {
        "type": "object",
        "required": ["prediction", "prediction_id", "at"],
        "properties": {
            "prediction": {"type": ["number", "null"]},
            "prediction_id": {"type": "string", "description": "Names this prediction in the log."},
            "at": {"type": "string", "format": "date-time", "description": "As of when features were read."},
            "defaulted": {"type": "boolean", "description": "The store did not answer; features are their defaults."},
            "ahead": {"type": "boolean", "description": "A state already held events at or after that moment."},
            "features": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "value": {"type": ["number", "null"]},
                        "age_s": {"type": ["number", "null"], "description": "Time since the state's newest event."},
                    },
                },
            },
        },
    }
    return {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string", "description": "The bundle that answered."},
            "predictions": {"type": "array", "items": prediction},
        },
    }


def _answer(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _problems() -> Json:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {status: _answer(text, reference) for status, text in _PROBLEMS.items()}


def described(base: Callable[[], Json], paths: Mapping[str, Json]) -> Callable[[], Json]:
    """FastAPI's document with the operations that it cannot see; made once, when first asked for."""
    document: Json = {}

    def openapi() -> Json:
        if not document:
            document.update(base())
            document["paths"] = {**paths, **document.get("paths", {})}
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM
        return document

    return openapi
