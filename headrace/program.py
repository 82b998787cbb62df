"""The opcode table: a view's layout as one array of int64, which the kernel interprets for every view alike.

The table starts with scalars at the fixed places `P_*`; some of them say where a table of rows begins:

    fields        F_*   one row per aggregated field
    inputs        I_*   one row per (field, mask)
    sections      S_*   partitions, ids, lifetime, raw events, then the levels: the parts of a state
    cells         C_*   one row per column of a section's rows
    accumulators  A_*   which accumulator of which input updates which cells
    windows       V_*   one row per window that some feature reads
    reads         R_*   which accumulators of a window go to which register
    finals        Z_*   how registers become a value
    code          O_*   stack code that makes the features out of those values

Beside it the kernel works in one mutable array (`W_*`, `M_*`, `D_*`, …), laid out here too, so that all compiled functions
share one signature. What may not live here: numba; meaning (that is `layout.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from headrace.aggregations import Accumulator, algebras
from headrace.features import Aggregate, Binary, Constant, Node, Unary, Windowed
from headrace.layout import RAW_LIMIT

if TYPE_CHECKING:
    from headrace.layout import Plan, Slot
    from headrace.views import FeatureView

# Scalars of the table.
P_FINGERPRINT: Final = 0
P_TOLERANCE_US: Final = 1
P_DEDUPE: Final = 2
P_RAW_LIMIT: Final = 3
P_N_FIELDS: Final = 4
P_FIELDS: Final = 5
P_N_INPUTS: Final = 6
P_INPUTS: Final = 7
P_N_SECTIONS: Final = 8
P_SECTIONS: Final = 9
P_CELLS: Final = 10
P_ACCUMULATORS: Final = 11
P_N_WINDOWS: Final = 12
P_WINDOWS: Final = 13
P_READS: Final = 14
P_N_CODE: Final = 15
P_CODE: Final = 16
P_FINALS: Final = 17
P_WORK_SIZE: Final = 18
P_BUFFER_BYTES: Final = 19
P_WORK_CELLS: Final = 20  # offsets into the working array
P_WORK_FIELDS: Final = 21
P_WORK_INPUTS: Final = 22
P_WORK_REGISTERS: Final = 23
P_WORK_STACK: Final = 24
P_RAW_FLAGS: Final = 25  # global index of the first cell of validity bits of a raw row
P_RAW_ORDER: Final = 26  # global index of the partition cell of a raw row; offset follows; -1: not kept
P_N_FEATURES: Final = 27
P_RAW_FLAGS_END: Final = 28
P_SIZE: Final = 29

F_SCALE: Final = 0
F_RAW_CELL: Final = 1  # -1: no windowed accumulator needs it
F_SIZE: Final = 2

I_FIELD: Final = 0
I_MASK: Final = 1
I_RAW_BIT: Final = 2  # -1: no windowed accumulator needs it
I_SIZE: Final = 3

S_TILE_US: Final = 0
S_WINDOW_US: Final = 1
S_CAPACITY: Final = 2
S_INDEX_BYTES: Final = 3
S_COUNT_BYTES: Final = 4
S_CELLS: Final = 5
S_N_CELLS: Final = 6
S_ACCUMULATORS: Final = 7
S_N_ACCUMULATORS: Final = 8
S_AREA: Final = 9
S_AREA_BYTES: Final = 10
S_SIZE: Final = 11

PARTITIONS: Final = 0
IDS: Final = 1
LIFETIME: Final = 2
RAW: Final = 3
LEVELS: Final = 4  # the first of them

C_KIND: Final = 0
C_SCALE: Final = 1
C_SIZE: Final = 2
KIND_UNSIGNED: Final = 0
KIND_SIGNED: Final = 1
KIND_VALUE: Final = 2

A_OP: Final = 0
A_INPUT: Final = 1
A_CELL: Final = 2
A_COUNT_CELL: Final = 3  # -1: the accumulator needs none
A_SIZE: Final = 4

V_SECTION: Final = 0
V_WINDOW_US: Final = 1
V_READS: Final = 2
V_N_READS: Final = 3
V_SIZE: Final = 4

R_OP: Final = 0
R_INPUT: Final = 1
R_CELL: Final = 2
R_COUNT_CELL: Final = 3
R_REGISTER: Final = 4
R_SIZE: Final = 5

Z_OP: Final = 0
Z_COUNT: Final = 1
Z_FIRST: Final = 2
Z_SECOND: Final = 3
Z_SCALE: Final = 4
Z_DDOF: Final = 5
Z_HAS_DEFAULT: Final = 6
Z_DEFAULT: Final = 7  # the bits of a float64
Z_SIZE: Final = 8

O_CODE: Final = 0
O_ARGUMENT: Final = 1
O_SIZE: Final = 2
OP_FINAL: Final = 0
OP_CONSTANT: Final = 1
OP_ADD: Final = 2
OP_SUBTRACT: Final = 3
OP_MULTIPLY: Final = 4
OP_DIVIDE: Final = 5
OP_NEGATE: Final = 6
OP_DEFAULT: Final = 7
OP_STORE: Final = 8

# The working array.
W_NEWEST_US: Final = 0
W_FORM: Final = 1
W_EXISTS: Final = 2
W_TIME_US: Final = 3
W_PARTITION: Final = 4
W_OFFSET: Final = 5
W_ID: Final = 6
W_PARTITION_ROW: Final = 7  # of the event's partition
W_SECTIONS: Final = 8

M_POSITION: Final = 0  # of the first row
M_ROWS: Final = 1
M_STRIDE: Final = 2
M_TOP: Final = 3  # index of the newest tile
M_SIZE: Final = 4

D_OFFSET: Final = 0  # within the row
D_BYTES: Final = 1
D_FLOAT: Final = 2  # a value cell that holds float64 bits
D_SIZE: Final = 3

X_UNITS: Final = 0
X_VALUE: Final = 1  # the bits of a float64
X_EXACT: Final = 2  # whether units / scale is the value
X_SIZE: Final = 3

G_HIGH: Final = 0
G_LOW: Final = 1
G_VALUE: Final = 2
G_SIZE: Final = 3

FORM_RAW: Final = 0
FORM_TILES: Final = 1

# What loading a state, or including an event, finds.
OK: Final = 0
BAD_LENGTH: Final = 1
BAD_VERSION: Final = 2
BAD_FINGERPRINT: Final = 3
BAD_CONTENT: Final = 4

FLAG_BITS: Final = 32  # validity bits in one cell of a raw row
MAX_PARTITIONS: Final = 4096
MAX_IDS: Final = 0xFFFF  # in one state, over all partitions
ID_BYTES: Final = 8
SLACK_BYTES: Final = 16
"""Every buffer that the kernel reads ends with this many spare bytes: a cell is read by one load of 8 or 16 bytes."""

_CELLS_OF: Final = {
    Accumulator.COUNT: (KIND_UNSIGNED,),
    Accumulator.SUM: (KIND_SIGNED,),
    Accumulator.SUM_SQUARES: (KIND_SIGNED,),
    Accumulator.MIN: (KIND_VALUE,),
    Accumulator.MAX: (KIND_VALUE,),
    # time within the tile, partition, offset, value
    Accumulator.FIRST: (KIND_SIGNED, KIND_UNSIGNED, KIND_UNSIGNED, KIND_VALUE),
    Accumulator.LAST: (KIND_SIGNED, KIND_UNSIGNED, KIND_UNSIGNED, KIND_VALUE),
    # time within the tile
    Accumulator.LATEST: (KIND_SIGNED,),
}
_MAX_CELL_BYTES: Final = {KIND_UNSIGNED: 8, KIND_SIGNED: 16, KIND_VALUE: 8}


def bytes_for(span: int) -> int:
    """How many bytes tell `span` + 1 successive numbers apart when only their low bytes are kept.

    >>> bytes_for(255), bytes_for(256), bytes_for(7 * 86_400 * 1_000_000)
    (1, 2, 5)
    """
    return max(1, (span.bit_length() + 7) // 8)


def encode_program(view: FeatureView, plan: Plan, fingerprint: int) -> npt.NDArray[np.int64]:
    """The opcode table of a view."""
    return _Encoder(view, plan, fingerprint).encode()


@dataclass
class _Encoder:
    view: FeatureView
    plan: Plan
    fingerprint: int
    cells: list[list[int]] = field(default_factory=list)
    accumulators: list[list[int]] = field(default_factory=list)
    sections: list[list[int]] = field(default_factory=list)
    cell_of: dict[tuple[int, Slot], int] = field(default_factory=dict)
    area: int = 0

    def encode(self) -> npt.NDArray[np.int64]:
        # offset, and how many of the ids are this partition's
        kinds = [(KIND_UNSIGNED, 1)] * (2 if self.view.dedupe else 1)
        self._section(0, 0, MAX_PARTITIONS, index_bytes=2, kinds=kinds, count_bytes=2, spare=1)
        ids = max(1, min(MAX_IDS, self.view.dedupe * MAX_PARTITIONS))
        self._section(0, 0, ids, index_bytes=ID_BYTES, kinds=[], count_bytes=2, spare=1)
        self._slots(0, 0, 1, 0, self.plan.lifetime)
        raw_flags, raw_order, fields, inputs = self._raw()
        for level in self.plan.levels:
            capacity = level.capacity(self.view.tolerance_us)
            self._slots(level.tile_us, level.window_us, capacity, bytes_for(capacity), level.slots)
        reader = _Reader(self.view, self.plan, self.cell_of)
        reader.build()
        tables = {
            P_FIELDS: fields,
            P_INPUTS: inputs,
            P_SECTIONS: self.sections,
            P_CELLS: self.cells,
            P_ACCUMULATORS: self.accumulators,
            P_WINDOWS: reader.windows,
            P_READS: reader.reads,
            P_CODE: reader.code,
            P_FINALS: reader.finals,
        }
        head = [0] * P_SIZE
        head[P_FINGERPRINT], head[P_TOLERANCE_US] = self.fingerprint, self.view.tolerance_us
        head[P_DEDUPE] = self.view.dedupe
        head[P_RAW_LIMIT] = RAW_LIMIT if self.plan.levels else 0
        head[P_RAW_FLAGS], head[P_RAW_ORDER] = raw_flags, raw_order
        head[P_RAW_FLAGS_END] = raw_flags + -(-sum(item[I_RAW_BIT] >= 0 for item in inputs) // FLAG_BITS)
        head[P_N_FIELDS], head[P_N_INPUTS] = len(fields), len(inputs)
        head[P_N_SECTIONS], head[P_N_WINDOWS] = len(self.sections), len(reader.windows)
        head[P_N_CODE], head[P_N_FEATURES] = len(reader.code), len(self.view.features)
        self._working_array(head, reader)
        body: list[int] = []
        for place, rows in tables.items():
            head[place] = P_SIZE + len(body)
            body += [number for row in rows for number in row]
        return np.array(head + body, dtype=np.int64)

    def _working_array(self, head: list[int], reader: _Reader) -> None:
        head[P_WORK_CELLS] = W_SECTIONS + len(self.sections) * M_SIZE
        head[P_WORK_FIELDS] = head[P_WORK_CELLS] + len(self.cells) * D_SIZE
        head[P_WORK_INPUTS] = head[P_WORK_FIELDS] + head[P_N_FIELDS] * X_SIZE
        head[P_WORK_REGISTERS] = head[P_WORK_INPUTS] + head[P_N_INPUTS]
        head[P_WORK_STACK] = head[P_WORK_REGISTERS] + reader.registers * G_SIZE
        head[P_WORK_SIZE] = head[P_WORK_STACK] + reader.depth
        head[P_BUFFER_BYTES] = self.area + SLACK_BYTES

    def _raw(self) -> tuple[int, int, list[list[int]], list[list[int]]]:
        """The section of retained events, and for each field and input where a raw row holds it."""
        slots = {slot for level in self.plan.levels for slot in level.slots}
        windowed = sorted({slot.input for slot in slots})
        kinds = [(KIND_UNSIGNED, 1)] * -(-len(windowed) // FLAG_BITS)
        flags = len(self.cells)
        ordered = any(slot.op in (Accumulator.FIRST, Accumulator.LAST) for slot in slots)
        order = flags + len(kinds) if ordered else -1
        kinds += [(KIND_UNSIGNED, 1)] * (2 if ordered else 0)
        used = sorted({self.plan.inputs[i].field for i in windowed} - {-1})
        cell_of_field = {f: flags + len(kinds) + rank for rank, f in enumerate(used)}
        kinds += [(KIND_VALUE, self.plan.fields[f].scale) for f in used]
        spans = [level.window_us + level.tile_us for level in self.plan.levels]
        span = max(spans, default=0) + self.view.tolerance_us
        self._section(0, 0, RAW_LIMIT + 1, index_bytes=bytes_for(span), kinds=kinds, count_bytes=1, spare=2)
        fields = [[facts.scale, cell_of_field.get(f, -1)] for f, facts in enumerate(self.plan.fields)]
        bit_of = {index: bit for bit, index in enumerate(windowed)}
        inputs = [[item.field, item.mask, bit_of.get(i, -1)] for i, item in enumerate(self.plan.inputs)]
        return flags, order, fields, inputs

    def _slots(self, tile_us: int, window_us: int, capacity: int, index_bytes: int, slots: Sequence[Slot]) -> None:
        section = len(self.sections)
        first_cell, first_accumulator = len(self.cells), len(self.accumulators)
        kinds: list[tuple[int, int]] = []
        for slot in slots:
            self.cell_of[section, slot] = first_cell + len(kinds)
            scale = self._scale(slot)
            kinds += [(kind, scale) for kind in _CELLS_OF[slot.op]]
        # Counts come last: the others ask the count whether they are the first.
        for slot in sorted(slots, key=lambda slot: (slot.op is Accumulator.COUNT, slot)):
            self.accumulators.append([slot.op, slot.input, self.cell_of[section, slot], self._count(section, slot)])
        self._section(tile_us, window_us, capacity, index_bytes, kinds, 1 if capacity < 256 else 2, 2)
        self.sections[section][S_ACCUMULATORS] = first_accumulator
        self.sections[section][S_N_ACCUMULATORS] = len(slots)

    def _scale(self, slot: Slot) -> int:
        index = self.plan.inputs[slot.input].field
        return 1 if index < 0 else self.plan.fields[index].scale

    def _count(self, section: int, slot: Slot) -> int:
        return next(
            (
                cell
                for (where, other), cell in self.cell_of.items()
                if where == section and other.input == slot.input and other.op is Accumulator.COUNT
            ),
            -1,
        )

    def _section(
        self,
        tile_us: int,
        window_us: int,
        capacity: int,
        index_bytes: int,
        kinds: Sequence[tuple[int, int]],
        count_bytes: int,
        spare: int,
    ) -> None:
        stride = index_bytes + sum(_MAX_CELL_BYTES[kind] for kind, _ in kinds)
        area_bytes = max(1, stride) * capacity * spare + SLACK_BYTES
        self.sections.append(
            [
                tile_us,
                window_us,
                capacity,
                index_bytes,
                count_bytes,
                len(self.cells),
                len(kinds),
                0,
                0,
                self.area,
                area_bytes,
            ]
        )
        self.cells += [[kind, scale] for kind, scale in kinds]
        self.area += area_bytes


@dataclass
class _Reader:
    """The half of the table that reads: windows, registers, finalizers and the code of the features."""

    view: FeatureView
    plan: Plan
    cell_of: dict[tuple[int, Slot], int]
    windows: list[list[int]] = field(default_factory=list)
    reads: list[list[int]] = field(default_factory=list)
    finals: list[list[int]] = field(default_factory=list)
    code: list[list[int]] = field(default_factory=list)
    registers: int = 0
    depth: int = 0
    _register_of: dict[tuple[int | None, int, int], int] = field(default_factory=dict)
    _final_of: dict[tuple[int, ...], int] = field(default_factory=dict)

    def build(self) -> None:
        leaves = self.view.aggregates
        lifetime: list[int | None] = [None] if any(leaf.window_us is None for leaf in leaves) else []
        for window_us in [*self.view.windows_us, *lifetime]:
            self._window(window_us, [leaf for leaf in leaves if leaf.window_us == window_us])
        for index, feature in enumerate(self.view.features):
            self._compile(feature.node, 0)
            self.code.append([OP_STORE, index])

    def _window(self, window_us: int | None, leaves: Iterable[Aggregate]) -> None:
        section = LIFETIME if window_us is None else LEVELS + self.view.ladder.level[window_us]
        wanted = sorted({(self.plan.input_of(leaf), op) for leaf in leaves for op in algebras()[leaf.op].accumulators})
        self.windows.append([section, -1 if window_us is None else window_us, len(self.reads), len(wanted)])
        cells = {(slot.input, slot.op): cell for (where, slot), cell in self.cell_of.items() if where == section}
        for index, op in wanted:
            register = self._register_of[window_us, index, op] = self.registers
            self.registers += 1
            count_cell = cells.get((index, Accumulator.COUNT), -1)
            self.reads.append([op, index, cells[index, op], count_cell, register])

    def _compile(self, node: Node, depth: int) -> None:
        """Append the code that leaves the node's value on top of the stack."""
        self.depth = max(self.depth, depth + 1)
        match node:
            case Windowed():
                self._compile(node.node(), depth)
            case Aggregate():
                self.code.append([OP_FINAL, self._final(node)])
            case Constant():
                self.code.append([OP_CONSTANT, float_bits(node.value)])
            case Unary():
                self._compile(node.operand, depth)
                self.code.append([OP_NEGATE, 0])
            case Binary():
                self._compile(node.left, depth)
                self._compile(node.right, depth + 1)
                self.code.append([_BINARY[node.op], 0])
            case _:
                raise AssertionError(f"the kernel has no code for {type(node).__name__}")

    def _final(self, leaf: Aggregate) -> int:
        algebra = algebras()[leaf.op]
        index = self.plan.input_of(leaf)
        registers = {op: self._register_of[leaf.window_us, index, op] for op in algebra.accumulators}
        count = registers.pop(Accumulator.COUNT, -1)
        first, second = [*registers.values(), -1, -1][:2]
        field_index = self.plan.inputs[index].field
        row = (
            int(algebra.finalizer),
            count,
            first,
            second,
            1 if field_index < 0 else self.plan.fields[field_index].scale,
            dict(leaf.params).get("ddof", 0),
            int(leaf.default is not None),
            float_bits(leaf.default or 0.0),
        )
        if row not in self._final_of:
            self._final_of[row] = len(self.finals)
            self.finals.append(list(row))
        return self._final_of[row]


_BINARY: Final = {
    "+": OP_ADD,
    "-": OP_SUBTRACT,
    "*": OP_MULTIPLY,
    "/": OP_DIVIDE,
    "default": OP_DEFAULT,
}


def float_bits(value: float) -> int:
    """The bits of a float64 as a signed integer.

    >>> float_bits(0.0), float_bits(1.0)
    (0, 4607182418800017408)
    """
    return int(np.float64(value).view(np.int64))
