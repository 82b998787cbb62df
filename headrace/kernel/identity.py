"""Which events a state already includes: of each partition an offset, and the ids of its last events.

Whether an event is a repeat of one from its own partition follows from that partition's offsets alone, so that no interleaving of
partitions, batch or restart can change it. What may not live here: what events mean.

    partitions    (0, offset 17, 3 ids)  (4, offset 9, 1 id)
    ids           a b c                  d                      of each partition in order of arrival
"""

from __future__ import annotations

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import load, move, store
from headrace.kernel.sections import (
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
    BAD_CONTENT,
    ID_BYTES,
    IDS,
    M_ROWS,
    MAX_PARTITIONS,
    OK,
    P_DEDUPE,
    PARTITIONS,
    S_CAPACITY,
    S_CELLS,
    W_ID,
    W_PARTITION_ROW,
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
    """Record an offset as included, and which row it has; OK, or BAD_CONTENT where an entity has too many partitions."""
    row = work[W_PARTITION_ROW] = _partition_row(program, work, buffer, partition)
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
def _ids_cell(program: list[int]) -> int:
    return program[section_facts(program, PARTITIONS) + S_CELLS] + 1


@inner
def is_known(program: list[int], work: list[int], buffer: int, identity: int) -> bool:
    """Whether an id is among those that the state remembers, of any partition."""
    first = row_position(work, IDS, 0)
    for row in range(work[section_state(IDS) + M_ROWS]):  # noqa: SIM110  (numba compiles no generators)
        if load(buffer, first + row * ID_BYTES) == identity:
            return True
    return False


@outlined
def recognize(program: list[int], work: list[int], buffer: int) -> bool:
    """Whether the event's id is known; remembers it among those of its partition, whose row `include_offset` has found.

    An id that only another partition has brought is remembered too: what is remembered of a partition depends on nothing else.
    """
    limit, identity, own = program[P_DEDUPE], work[W_ID], work[W_PARTITION_ROW]
    if limit == 0:
        return False
    cell, begin = _ids_cell(program), 0
    for row in range(own):
        begin += get_count(program, work, buffer, PARTITIONS, row, cell)
    count = get_count(program, work, buffer, PARTITIONS, own, cell)
    first, rows = row_position(work, IDS, 0), work[section_state(IDS) + M_ROWS]
    known = False
    for row in range(rows):
        if load(buffer, first + row * ID_BYTES) == identity:
            known = True
            if begin <= row < begin + count:
                return True
    if count == limit or rows == program[section_facts(program, IDS) + S_CAPACITY]:
        if count > 0:
            oldest = first + begin * ID_BYTES
            move(buffer, oldest, buffer, oldest + ID_BYTES, (count - 1) * ID_BYTES)
            store(buffer, oldest + (count - 1) * ID_BYTES, identity)
        return known
    insert_row(program, work, buffer, IDS, begin + count)
    store(buffer, row_position(work, IDS, begin + count), identity)
    set_count(program, work, buffer, PARTITIONS, own, cell, count + 1)
    return known


@inner
def has_all_ids(program: list[int], work: list[int], buffer: int) -> bool:
    """Whether the partitions of a loaded state account for its ids: nothing else may be taken for one."""
    if program[P_DEDUPE] == 0:
        return True
    count = 0
    for row in range(work[section_state(PARTITIONS) + M_ROWS]):
        count += get_count(program, work, buffer, PARTITIONS, row, _ids_cell(program))
    return count == work[section_state(IDS) + M_ROWS]
