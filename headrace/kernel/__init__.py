"""The kernel: one compiled module that stream, training and serving call, so that they cannot disagree.

    prepare   columns of events            -> EventBatch
    update    states, events               -> new states                      (stream)
    read      states, moments              -> features                        (serving; `JointReader`: of several views)
    sweep     events and moments in order  -> features                        (training)
    repeats   events                       -> which of them `update` skips    (training)

Importing this package loads numba; `import headrace` does not. What may not live here: I/O, clocks, definitions.
"""

from __future__ import annotations

from headrace.kernel.batch import EventBatch, prepare
from headrace.kernel.hashing import Groups, group_keys, hash_bytes, hash_keys, hash_list
from headrace.kernel.heads import Included, included
from headrace.kernel.joint import NEVER, JointRead, JointReader, read
from headrace.kernel.nulls import null_infinite
from headrace.kernel.operations import (
    DUPLICATE,
    FILTERED,
    FOLD,
    FOLDED,
    READ,
    SKIPPED_OFFSET,
    TOO_LATE,
    Updated,
    canonical,
    repeats,
    sweep,
    update,
    warm,
)
from headrace.layout import Layout
from headrace.states import Headers, StateHeader, States, header, headers

__all__ = [
    "DUPLICATE",
    "FILTERED",
    "FOLD",
    "FOLDED",
    "NEVER",
    "READ",
    "SKIPPED_OFFSET",
    "TOO_LATE",
    "EventBatch",
    "Groups",
    "Headers",
    "Included",
    "JointRead",
    "JointReader",
    "Layout",
    "StateHeader",
    "States",
    "Updated",
    "canonical",
    "group_keys",
    "hash_bytes",
    "hash_keys",
    "hash_list",
    "header",
    "headers",
    "included",
    "null_infinite",
    "prepare",
    "read",
    "repeats",
    "sweep",
    "update",
    "warm",
]
