"""Which events a state already includes: an offset per partition, and the ids of the newest events.

Both are functions of the set of events: a maximum per partition, and the newest ids by (event time, id).
What may not live here: what events mean.
"""

from __future__ import annotations

from headrace.kernel.codec import BAD_CONTENT, OK
from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import load, store, unsigned_less
from headrace.kernel.numbers import get_unsigned, put
from headrace.kernel.retention import unwrap
from headrace.kernel.sections import (
    drop_rows,
    get_count,
    get_index,
    insert_row,
    row_position,
    section_facts,
    section_state,
    set_count,
    set_index,
)
from headrace.program import (
    IDS,
    M_ROWS,
    MAX_PARTITIONS,
    P_DEDUPE,
    P_SPAN_US,
    PARTITIONS,
    S_CELLS,
    S_INDEX_BYTES,
    W_ID,
    W_NEWEST_US,
    W_TIME_US,
)


@inner
def _partition_row(program: list[int], work: list[int], buffer: int, partition: int) -> int:
    """The first row whose partition is at least this one."""
    rows = work[section_state(PARTITIONS) + M_ROWS]
    row = 0
    while row < rows and get_index(program, work, buffer, PARTITIONS, row) < partition:
        row += 1
    return row


@inner
def included_offset(program: list[int], work: list[int], buffer: int, partition: int) -> int:
    """The last offset of a partition that the state includes; -1 for none."""
    row = _partition_row(program, work, buffer, partition)
    if row == work[section_state(PARTITIONS) + M_ROWS]:
        return -1
    if get_index(program, work, buffer, PARTITIONS, row) != partition:
        return -1
    cell = program[section_facts(program, PARTITIONS) + S_CELLS]
    return get_count(program, work, buffer, PARTITIONS, row, cell)


@outlined
def include_offset(program: list[int], work: list[int], buffer: int, partition: int, offset: int) -> int:
    """Record an offset as included; OK, or BAD_CONTENT where an entity has too many partitions."""
    row = _partition_row(program, work, buffer, partition)
    rows = work[section_state(PARTITIONS) + M_ROWS]
    cell = program[section_facts(program, PARTITIONS) + S_CELLS]
    if row == rows or get_index(program, work, buffer, PARTITIONS, row) != partition:
        if rows == MAX_PARTITIONS:
            return BAD_CONTENT
        insert_row(program, work, buffer, PARTITIONS, row)
        set_index(program, work, buffer, PARTITIONS, row, partition)
    set_count(program, work, buffer, PARTITIONS, row, cell, offset)
    return OK


@inner
def is_known(program: list[int], work: list[int], buffer: int, identity: int) -> bool:
    """Whether an id is among the entity's newest."""
    rows = work[section_state(IDS) + M_ROWS]
    skip = program[section_facts(program, IDS) + S_INDEX_BYTES] - 8
    for row in range(rows):  # noqa: SIM110  (numba compiles no generators)
        if load(buffer, row_position(work, IDS, row) + skip) == identity:
            return True
    return False


@inner
def _id_time(program: list[int], work: list[int], buffer: int, row: int) -> int:
    size = program[section_facts(program, IDS) + S_INDEX_BYTES] - 8
    return unwrap(get_unsigned(buffer, row_position(work, IDS, row), size), size, work[W_NEWEST_US])


@outlined
def remember(program: list[int], work: list[int], buffer: int) -> None:
    """Keep the event's id if it is among the newest by (event time, id)."""
    limit, span = program[P_DEDUPE], program[P_SPAN_US]
    time_us, identity = work[W_TIME_US], work[W_ID]
    if limit == 0 or (span > 0 and time_us < work[W_NEWEST_US] - span):
        return
    row = work[section_state(IDS) + M_ROWS]
    while row > 0:
        other = _id_time(program, work, buffer, row - 1)
        if other < time_us:
            break
        skip = program[section_facts(program, IDS) + S_INDEX_BYTES] - 8
        if other == time_us and unsigned_less(load(buffer, row_position(work, IDS, row - 1) + skip), identity):
            break
        row -= 1
    if work[section_state(IDS) + M_ROWS] == limit:
        if row == 0:
            return
        drop_rows(program, work, IDS, 1)
        row -= 1
    insert_row(program, work, buffer, IDS, row)
    size = program[section_facts(program, IDS) + S_INDEX_BYTES] - 8
    put(buffer, row_position(work, IDS, row), size, time_us)
    store(buffer, row_position(work, IDS, row) + size, identity)


@outlined
def expire_ids(program: list[int], work: list[int], buffer: int, newest_us: int) -> None:
    """Forget the ids of events that no window can see any more."""
    span = program[P_SPAN_US]
    if span > 0:
        count, rows = 0, work[section_state(IDS) + M_ROWS]
        while count < rows and _id_time(program, work, buffer, count) < newest_us - span:
            count += 1
        if count > 0:
            drop_rows(program, work, IDS, count)
