"""Folding one event into a loaded state.

    newer than everything?      the horizon moves: drop what no admissible read can see
    fold it into the lifetime, and either keep the event itself (raw form) or fold it into one tile per level

After any permutation of the same events the state means the same, because each step is a function of the set: the newest time
is a maximum, raw events are the newest ones, accumulators are exact. What may not live here: batches (`engine.py`), and
whether the event is a repeat (`identity.py`).
"""

from __future__ import annotations

from typing import Final

from headrace.kernel.compiling import outlined
from headrace.kernel.raw import retain
from headrace.kernel.retention import expire_raw, expire_tiles, horizon
from headrace.kernel.sections import insert_row, section_facts, section_state
from headrace.kernel.tiles import accumulate, fold_tiles
from headrace.program import (
    FORM_RAW,
    FORM_TILES,
    LEVELS,
    LIFETIME,
    M_ROWS,
    M_TOP,
    P_N_SECTIONS,
    P_RAW_LIMIT,
    S_N_CELLS,
    S_TILE_US,
    W_EXISTS,
    W_FORM,
    W_NEWEST_US,
    W_TIME_US,
)

FOLDED: Final = 0
SKIPPED_OFFSET: Final = 1
DUPLICATE: Final = 2
TOO_LATE: Final = 3
FILTERED: Final = 4


@outlined
def fold(program: list[int], work: list[int], buffer: int) -> int:
    """Fold the event in the working array; returns FOLDED or TOO_LATE."""
    if work[W_EXISTS] == 0 or work[W_TIME_US] > work[W_NEWEST_US]:
        advance(program, work, buffer, work[W_TIME_US])
    accepted = 0
    if program[section_facts(program, LIFETIME) + S_N_CELLS] > 0:
        accepted = 1
        if work[section_state(LIFETIME) + M_ROWS] == 0:
            insert_row(program, work, buffer, LIFETIME, 0)
        accumulate(program, work, buffer, LIFETIME, 0, 0)
    if work[W_FORM] == FORM_RAW:
        accepted |= retain(program, work, buffer)
    else:
        accepted |= fold_tiles(program, work, buffer)
    return FOLDED if accepted != 0 else TOO_LATE


@outlined
def advance(program: list[int], work: list[int], buffer: int, newest_us: int) -> None:
    """Move the newest event time, and drop what leaves every window; rows are told apart by the old time until then."""
    first = work[W_EXISTS] == 0
    if not first and work[W_FORM] == FORM_RAW:
        expire_raw(program, work, buffer, newest_us)
    kept = 0
    for section in range(LEVELS, program[P_N_SECTIONS]):
        state = section_state(section)
        top = newest_us // program[section_facts(program, section) + S_TILE_US]
        if not first and work[W_FORM] == FORM_TILES and top != work[state + M_TOP]:
            expire_tiles(program, work, buffer, section, horizon(program, section, newest_us))
        work[state + M_TOP] = top
        kept += work[state + M_ROWS]
    if kept == 0 and program[P_RAW_LIMIT] > 0:
        work[W_FORM] = FORM_RAW
    work[W_NEWEST_US] = newest_us
    work[W_EXISTS] = 1
