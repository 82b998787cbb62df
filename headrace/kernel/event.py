"""One event in the working array: its values in whole quanta, and which inputs it is valid for.

What may not live here: states.
"""

from __future__ import annotations

import math

from headrace.kernel.compiling import inner, outlined
from headrace.kernel.memory import float_bits
from headrace.kernel.numbers import NOT_EXACT, SUMMABLE, exact_units, quantise
from headrace.program import (
    F_SCALE,
    F_SIZE,
    I_FIELD,
    I_MASK,
    I_SIZE,
    P_FIELDS,
    P_INPUTS,
    P_N_FIELDS,
    P_N_INPUTS,
    P_WORK_FIELDS,
    P_WORK_INPUTS,
    W_ID,
    W_OFFSET,
    W_PARTITION,
    W_TIME_US,
    X_EXACT,
    X_SIZE,
    X_UNITS,
    X_VALUE,
)


@outlined
def set_event(
    program: list[int],
    work: list[int],
    time_us: int,
    partition: int,
    offset: int,
    identity: int,
    values: list[float],
    masks: list[int],
) -> None:
    """Lay an event into the working array: its values in whole quanta, and which inputs it is valid for.

    Args:
        program: the opcode table.
        work: the working array.
        time_us: event time.
        partition: where the event lies.
        offset: where the event lies.
        identity: hash of its id.
        values: one per field of the layout, NaN for null.
        masks: one per filter of the layout.
    """
    work[W_TIME_US], work[W_PARTITION], work[W_OFFSET], work[W_ID] = time_us, partition, offset, identity
    for field in range(program[P_N_FIELDS]):
        set_field(program, work, field, values[field])
    for index in range(program[P_N_INPUTS]):
        facts = program[P_INPUTS] + index * I_SIZE
        field, mask = program[facts + I_FIELD], program[facts + I_MASK]
        valid = 1
        if mask >= 0 and masks[mask] == 0:
            valid = 0
        if field >= 0 and math.isnan(values[field]):
            valid = 0
        work[program[P_WORK_INPUTS] + index] = valid


@inner
def set_field(program: list[int], work: list[int], field: int, value: float) -> None:
    """Lay one value of an event into the working array."""
    x = program[P_WORK_FIELDS] + field * X_SIZE
    value += 0.0  # -0.0 becomes 0.0
    if math.isnan(value):
        work[x + X_UNITS], work[x + X_VALUE], work[x + X_EXACT] = 0, 0, 1
        return
    scale = program[program[P_FIELDS] + field * F_SIZE + F_SCALE]
    units = exact_units(value, scale)
    work[x + X_EXACT] = 0 if units == NOT_EXACT else 1
    if units == NOT_EXACT and abs(value) * scale < SUMMABLE:
        units = quantise(value, scale)
    work[x + X_UNITS], work[x + X_VALUE] = units, float_bits(value)
