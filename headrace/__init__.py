"""Headrace: streaming features and inference from one declaration.

Events, entities, feature views, labels, on-demand transforms and models are declared with the names below; from the same
declaration run the feature, training and inference pipelines. Importing this package loads numpy and no compiler: the
kernel is compiled when it is first used.
"""

from headrace.arrays import abs, cos, exp, expm1, is_null, log, log1p, maximum, minimum, pow, sin, sqrt, tanh, where  # noqa: A004  (as hr.abs, never bare)
from headrace.entities import Entity
from headrace.errors import (
    CodecError,
    ConfigError,
    ContractError,
    DefinitionError,
    Fenced,
    Gap,
    HeadraceError,
    IdentityError,
    Location,
    NotFound,
    ServiceUnavailable,
    Stale,
    StoreError,
)
from headrace.events import Event, FieldRef
from headrace.expressions import Columns, Expression, col
from headrace.features import count, first, last, max, mean, min, std, sum, time_since_last, var  # noqa: A004  (as hr.sum, never bare)
from headrace.fields import Field, FieldType, boolean, float64, int64, string, timestamp
from headrace.labels import Label
from headrace.models import Model, ModelInput, RequestField
from headrace.projects import Project
from headrace.transforms import OnDemand, on_demand
from headrace.views import Feature, FeatureView, Lookup, LookupFeature

__version__ = "0.1.0"

__all__ = [
    "CodecError",
    "Columns",
    "ConfigError",
    "ContractError",
    "DefinitionError",
    "Entity",
    "Event",
    "Expression",
    "Feature",
    "FeatureView",
    "Fenced",
    "Field",
    "FieldRef",
    "FieldType",
    "Gap",
    "HeadraceError",
    "IdentityError",
    "Label",
    "Location",
    "Lookup",
    "LookupFeature",
    "Model",
    "ModelInput",
    "NotFound",
    "OnDemand",
    "Project",
    "RequestField",
    "ServiceUnavailable",
    "Stale",
    "StoreError",
    "abs",
    "boolean",
    "col",
    "cos",
    "count",
    "exp",
    "expm1",
    "first",
    "float64",
    "int64",
    "is_null",
    "last",
    "log",
    "log1p",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "on_demand",
    "pow",
    "sin",
    "sqrt",
    "std",
    "string",
    "sum",
    "tanh",
    "time_since_last",
    "timestamp",
    "var",
    "where",
]
