"""The algebra of an aggregation: what it keeps, how that becomes a value, and its naive definition.

An aggregation is assembled from accumulators: small exact states with `zero`, `update` and `merge`, compiled once in the
kernel and shared by all aggregations of a view that need the same one (mean and sum keep one sum between them). Its finalizer
turns them into a number by one fixed sequence of operations. Here stands only *which* it needs, and the definition in plain
Python that the compiled code is held to.

Every module of this package holds one `Algebra`; existing there is what enrols it in the kernel, the oracle and the laws.
What may not live here: windows, filters, keys, bytes.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class Accumulator(enum.IntEnum):
    """What a tile can keep of one input. The numbers are opcodes of the kernel and part of the state's meaning."""

    COUNT = 0
    SUM = 1
    SUM_SQUARES = 2
    MIN = 3
    MAX = 4
    FIRST = 5
    LAST = 6
    LATEST = 7


class Finalizer(enum.IntEnum):
    """How merged accumulators become a value. The numbers are opcodes of the kernel."""

    COUNT = 0
    SUM = 1
    MEAN = 2
    VAR = 3
    STD = 4
    VALUE = 5
    SINCE = 6


@dataclass(frozen=True, slots=True)
class Observation:
    """One event that an aggregation counts: inside the window, past the filter, with a value.

    Args:
        time_us: its event time.
        partition: where it lies in the topic; with `offset` it orders events of equal time.
        offset: see `partition`.
        value: the field's value (0.0 for aggregations without a field); never null, never -0.0.
        units: the value in whole quanta, rounded half to even.
    """

    time_us: int
    partition: int
    offset: int
    value: float
    units: int

    @property
    def order(self) -> tuple[int, int, int]:
        """What "earlier" and "later" mean."""
        return self.time_us, self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Reading:
    """What a finalizer knows besides the observations.

    Args:
        at_us: the moment of reading.
        scale: quanta per one, such as 100 for a quantum of 0.01.
        params: the aggregation's named integers.
    """

    at_us: int
    scale: int
    params: Mapping[str, int]


class Algebra(ABC):
    """One aggregation. Subclasses are stateless; their docstring shows a short stream with its values.

    Attributes:
        name: how definitions call it.
        takes_field: whether it aggregates a field (or only events).
        accumulators: what it keeps, in the order in which its finalizer reads them.
        finalizer: how they become a value.
    """

    name: ClassVar[str]
    takes_field: ClassVar[bool]
    accumulators: ClassVar[tuple[Accumulator, ...]]
    finalizer: ClassVar[Finalizer]

    @staticmethod
    @abstractmethod
    def naive(observations: Sequence[Observation], reading: Reading) -> float | None:
        """The definition: the value over these observations, or None for null."""
