"""JSON Schema: what an event's own schema requires beyond the types and bounds of its fields.

Every record of an event that was declared from a JSON Schema is validated as a whole by `jsonschema-rs`, nested parts and formats
included. What may not live here: reading values (``jsons.py``), fields (``headrace.json_schema``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from headrace.errors import CodecError
from headrace_schemas.columns import Columnar, Fault
from headrace_schemas.framing import Decoder

CODE = "json-schema"
_SHOWN = 200


class ValidatingDecoder:
    """Records that are decoded and keep a JSON Schema.

    Args:
        what: the event, for messages.
        schema: the JSON Schema.
        decoder: decodes them.

    Raises:
        CodecError: the schema is none.
    """

    def __init__(self, what: str, schema: Mapping[str, Any], decoder: Decoder) -> None:
        import jsonschema_rs

        self._what, self._decoder = what, decoder
        try:
            self._validator = jsonschema_rs.validator_for(dict(schema), validate_formats=True, offline=True)
        except Exception as error:  # noqa: BLE001  (it raises errors of several kinds, ValueError among them)
            raise CodecError(what, f"its JSON Schema cannot be used ({error})") from None

    def decode(self, values: Sequence[bytes]) -> Columnar:
        """The frame of the good records in their order, their rows, and what is wrong with the others."""
        decoded = self._decoder.decode(values)
        keeps = np.ones(len(decoded.rows), np.bool_)
        for place, row in enumerate(decoded.rows.tolist()):
            error = next(self._validator.iter_errors(json.loads(values[row])), None)
            if error is not None:
                keeps[place] = False
                where = "/".join(map(str, error.instance_path))
                decoded.faults.append(
                    Fault(row, f"{self._what}, {where or 'the record'}: {error.message}"[:_SHOWN], CODE)
                )
        if not keeps.all():
            decoded.frame, decoded.rows = decoded.frame.filter(pl.Series(keeps)), decoded.rows[keeps]
        return decoded
