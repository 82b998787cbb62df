"""What a state still keeps: the horizons that follow the newest event time, and what they drop.

Retention is a function of the newest event time alone, never of a clock: whatever no admissible read can see (a read at or after
the newest event time less the tolerance) is dropped, and nothing else. What may not live here: folding.
"""

from __future__ import annotations

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.sections import drop_rows, get_index, section_facts, section_state
from headrace.program import (
    LEVELS,
    M_ROWS,
    M_TOP,
    P_N_SECTIONS,
    P_TOLERANCE_US,
    RAW,
    S_INDEX_BYTES,
    S_TILE_US,
    S_WINDOW_US,
    W_NEWEST_US,
)


@inner
def unwrap(stored: int, size: int, newest: int) -> int:
    """The number at most `newest` whose low bytes are stored."""
    if size == 8:
        return stored
    return newest - ((newest - stored) & ((1 << (8 * size)) - 1))


@inner
def horizon(program: list[int], section: int, newest_us: int) -> int:
    """The oldest tile of a level that an admissible read can see."""
    facts = section_facts(program, section)
    return (newest_us - program[P_TOLERANCE_US] - program[facts + S_WINDOW_US]) // program[facts + S_TILE_US]


@inner
def raw_horizon(program: list[int], newest_us: int) -> int:
    """The earliest time of which some level can still see the tile."""
    earliest = newest_us
    for section in range(LEVELS, program[P_N_SECTIONS]):
        tile_us = program[section_facts(program, section) + S_TILE_US]
        earliest = min(earliest, horizon(program, section, newest_us) * tile_us)
    return earliest


@inner
def raw_time(program: list[int], work: list[int], buffer: int, row: int) -> int:
    """The time of a retained event."""
    size = program[section_facts(program, RAW) + S_INDEX_BYTES]
    return unwrap(get_index(program, work, buffer, RAW, row), size, work[W_NEWEST_US])


@inner
def tile_index(program: list[int], work: list[int], buffer: int, section: int, row: int) -> int:
    """The index of a tile: its start divided by its size."""
    size = program[section_facts(program, section) + S_INDEX_BYTES]
    return unwrap(get_index(program, work, buffer, section, row), size, work[section_state(section) + M_TOP])


@outlined
def expire_raw(program: list[int], work: list[int], buffer: int, newest_us: int) -> None:
    """Drop the retained events that no level can see any more."""
    rows = work[section_state(RAW) + M_ROWS]
    if rows == 0:
        return
    earliest = raw_horizon(program, newest_us)
    count = 0
    while count < rows and raw_time(program, work, buffer, count) < earliest:
        count += 1
    if count > 0:
        drop_rows(program, work, RAW, count)


@outlined
def expire_tiles(program: list[int], work: list[int], buffer: int, section: int, oldest: int) -> None:
    """Drop the tiles before the oldest one."""
    count, rows = 0, work[section_state(section) + M_ROWS]
    while count < rows and tile_index(program, work, buffer, section, count) < oldest:
        count += 1
    if count > 0:
        drop_rows(program, work, section, count)
