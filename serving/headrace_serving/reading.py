"""Reading one view for many rows: entity keys from request fields, Redis keys, states, features.

Everything that does not depend on the request is resolved when a plan is made. What may not live here: models, HTTP, waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import headrace as hr
from headrace import kernel
from headrace.errors import ContractError
from headrace.layout import Layout
from headrace.requests import Record
from headrace.states import HEADER
from headrace_schemas.keys import ViewKeys, encode_column, encode_key

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
State = bytes | None


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """How one view is read.

    Attributes:
        view: the view.
        layout: the layout of its states.
        keys: its names in Redis.
        key_fields: the request fields that form the entity key, in the entity's order.
    """

    view: hr.FeatureView
    layout: Layout
    keys: ViewKeys
    key_fields: tuple[str, ...]

    @classmethod
    def of(cls, namespace: str, view: hr.FeatureView, key_fields: Iterable[str]) -> ViewPlan:
        """The plan of a view whose key comes from these request fields."""
        return cls(view, Layout.of(view), ViewKeys(namespace, view), tuple(key_fields))

    def entity_keys(self, records: Sequence[Record]) -> list[bytes]:
        """The entity key of each checked row.

        Raises:
            ContractError: a key is too long for the store; it names the row and its fields.
        """
        return self.encode([[record[field] for record in records] for field in self.key_fields])

    def encode(self, values: Sequence[Sequence[str | int]]) -> list[bytes]:
        """The same of plain values: one sequence per key field.

        Raises:
            ContractError: as `entity_keys`.
        """
        plain = encode_column(values[0]) if len(values) == 1 else None  # type: ignore[arg-type]
        if plain is not None:
            return plain
        keys: list[bytes] = []
        try:
            keys.extend(encode_key(row) for row in zip(*values, strict=True))
        except ContractError as error:
            fields = ", ".join(self.key_fields)
            row = len(keys) if len(values[0]) > 1 else None
            raise ContractError(fields, f"an entity key of {error.required}", error.got, row) from None
        return keys

    def read(self, states: Sequence[State], at_us: Int64) -> Float64:
        """All features of the view, one row per state."""
        return kernel.read(self.layout, kernel.States.from_list(states), at_us)


def newest_us(state: State) -> int:
    """The newest event time in a state that was read; `kernel.NEVER` where there is no state."""
    return kernel.NEVER if state is None else HEADER.unpack_from(state)[3]
