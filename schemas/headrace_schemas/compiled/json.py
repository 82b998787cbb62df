"""JSON objects, from bytes that lie one behind the other to columns: the plain ones.

An object is plain if it can be read without doubt: names and texts without escapes, no nested values, whole numbers of at most 18
digits, times in the usual spellings. Any other object, and any malformed one, is doubtful and left to the careful reader
(``headrace_schemas/jsons.py``), which has the last word; what is read here is what it would read. First `tokenize` finds each
field's value in each object, then one function per type converts a column of them.
What may not live here: a decision that an object is wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace_schemas.compiled.compiling import entry, inner
from headrace_schemas.compiled.texts import is_utf8, put_view

# What a field's value is.
ABSENT, NULL, FALSE, TRUE, TEXT, WHOLE, REAL = 0, 1, 2, 3, 4, 5, 6

DOUBTFUL = -1

_LONGEST_NUMBER = 400  # longer ones are finite only by their leading zeros or not at all
_DIGITS = 18  # as many always fit 64 bits
_EXACT_MANTISSA = 2**53
_EXACT_POWER = 22  # 10**22 is the largest power of ten that a float holds exactly (Clinger 1990)
_POWERS = np.array([float(10**power) for power in range(_EXACT_POWER + 1)])
_DAY_S = 86_400
_NO_ZONE = 100_000

_QUOTE, _BACKSLASH, _COMMA, _COLON, _OPEN, _CLOSE = 34, 92, 44, 58, 123, 125
_MINUS, _PLUS, _POINT, _ZERO, _NINE, _LOWER_E, _UPPER_E = 45, 43, 46, 48, 57, 101, 69
_T, _Z = 84, 90


@inner
def _skip_space(body: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """The first byte from `at` on that is no space."""
    while at < end and (body[at] == 32 or body[at] == 10 or body[at] == 13 or body[at] == 9):
        at += 1
    return at


@inner
def _is_digit(byte: int) -> bool:
    """Whether a byte is an ASCII digit."""
    return _ZERO <= byte <= _NINE


@inner
def _text_end(body: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Where the closing quote of a text lies that begins at `at`; DOUBTFUL with an escape, a control character or bad UTF-8."""
    begin, plain = at, True
    while at < end and body[at] != _QUOTE:
        if body[at] == _BACKSLASH or body[at] < 0x20:
            return DOUBTFUL
        plain = plain and body[at] < 0x80
        at += 1
    if at >= end or not (plain or is_utf8(body, begin, at)):
        return DOUBTFUL
    return at


@inner
def _skip_digits(body: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Behind one digit or more; DOUBTFUL without any."""
    if at >= end or not _is_digit(body[at]):
        return DOUBTFUL
    while at < end and _is_digit(body[at]):
        at += 1
    return at


@inner
def _number_end(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """Behind a number by JSON's grammar: (position or DOUBTFUL, WHOLE or REAL)."""
    begin, kind = at, WHOLE
    if body[at] == _MINUS:
        at += 1
    leading_zero = at + 1 < end and body[at] == _ZERO and _is_digit(body[at + 1])
    at = _skip_digits(body, at, end)
    if at < 0 or leading_zero:
        return DOUBTFUL, kind
    if at < end and body[at] == _POINT:
        kind = REAL
        at = _skip_digits(body, at + 1, end)
        if at < 0:
            return DOUBTFUL, kind
    if at < end and (body[at] == _LOWER_E or body[at] == _UPPER_E):
        kind = REAL
        at += 1
        if at < end and (body[at] == _MINUS or body[at] == _PLUS):
            at += 1
        at = _skip_digits(body, at, end)
    return (at if at - begin <= _LONGEST_NUMBER else DOUBTFUL), kind


@inner
def _literal(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """``true``, ``false`` or ``null``: (position behind it or DOUBTFUL, which)."""
    if end - at >= 4 and body[at] == 116 and body[at + 1] == 114 and body[at + 2] == 117 and body[at + 3] == 101:
        return at + 4, TRUE
    if end - at >= 4 and body[at] == 110 and body[at + 1] == 117 and body[at + 2] == 108 and body[at + 3] == 108:
        return at + 4, NULL
    if end - at >= 5 and body[at] == 102 and body[at + 1] == 97 and body[at + 2] == 108 and body[at + 3] == 115:
        return (at + 5, FALSE) if body[at + 4] == 101 else (DOUBTFUL, ABSENT)
    return DOUBTFUL, ABSENT


@inner
def _value_end(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """Behind a value that is no array or object: (position or DOUBTFUL, what it is)."""
    if at >= end:
        return DOUBTFUL, ABSENT
    if body[at] == _QUOTE:
        text_end = _text_end(body, at + 1, end)
        return (text_end + 1 if text_end >= 0 else DOUBTFUL), TEXT
    if body[at] == _MINUS or _is_digit(body[at]):
        return _number_end(body, at, end)
    return _literal(body, at, end)


@inner
def _field_named(
    body: npt.NDArray[np.uint8],
    at: int,
    end: int,
    names: npt.NDArray[np.uint8],
    name_offsets: npt.NDArray[np.int64],
    guess: int,
) -> int:
    """The field that these bytes name; −1 for none. Producers keep their order, so the one behind the last is tried first."""
    fields = len(name_offsets) - 1
    for step in range(fields):
        field = (guess + step) % fields
        begin = name_offsets[field]
        if name_offsets[field + 1] - begin == end - at:
            same = True
            for i in range(end - at):
                if names[begin + i] != body[at + i]:
                    same = False
                    break
            if same:
                return field
    return -1


@inner
def _member(
    body: npt.NDArray[np.uint8],
    at: int,
    end: int,
    names: npt.NDArray[np.uint8],
    name_offsets: npt.NDArray[np.int64],
    guess: int,
) -> tuple[int, int, int, int]:
    """A name and its value: (position behind both or DOUBTFUL, field or −1, what the value is, where it begins)."""
    if at >= end or body[at] != _QUOTE:
        return DOUBTFUL, -1, ABSENT, 0
    name_end = _text_end(body, at + 1, end)
    if name_end < 0:
        return DOUBTFUL, -1, ABSENT, 0
    field = _field_named(body, at + 1, name_end, names, name_offsets, guess)
    at = _skip_space(body, name_end + 1, end)
    if at >= end or body[at] != _COLON:
        return DOUBTFUL, field, ABSENT, 0
    begin = _skip_space(body, at + 1, end)
    after, kind = _value_end(body, begin, end)
    return after, field, kind, begin


@inner
def _object(
    body: npt.NDArray[np.uint8],
    at: int,
    end: int,
    names: npt.NDArray[np.uint8],
    name_offsets: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    row: int,
) -> bool:
    """Find the values of one object; False where it is doubtful."""
    at = _skip_space(body, at, end)
    if at >= end or body[at] != _OPEN:
        return False
    at = _skip_space(body, at + 1, end)
    closed = at < end and body[at] == _CLOSE
    guess = 0
    while not closed:
        at, field, kind, begin = _member(body, at, end, names, name_offsets, guess)
        if at < 0:
            return False
        if field >= 0:
            if kinds[field, row] != ABSENT:
                return False
            kinds[field, row], begins[field, row], ends[field, row] = kind, begin, at
            guess = field + 1
        at = _skip_space(body, at, end)
        if at >= end or (body[at] != _COMMA and body[at] != _CLOSE):
            return False
        closed = body[at] == _CLOSE
        if not closed:
            at = _skip_space(body, at + 1, end)
    return bool(_skip_space(body, at + 1, end) == end)


@entry
def tokenize(
    body: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    names: npt.NDArray[np.uint8],
    name_offsets: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    doubtful: npt.NDArray[np.uint8],
) -> None:
    """Find every field's value in every object.

    Args:
        body: the objects one behind the other.
        offsets: where each begins and the last ends, [rows + 1].
        names: the fields' names one behind the other.
        name_offsets: where each begins and the last ends, [fields + 1].
        kinds: per field what its value is; ABSENT at first, [fields, rows].
        begins: where it begins in `body`, [fields, rows].
        ends: where it ends, [fields, rows].
        doubtful: per row whether the object is left to the careful reader.
    """
    for row in range(len(offsets) - 1):
        plain = _object(body, offsets[row], offsets[row + 1], names, name_offsets, kinds, begins, ends, row)
        doubtful[row] = not plain


@entry
def read_texts(
    body: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    views: npt.NDArray[np.uint8],
    doubtful: npt.NDArray[np.uint8],
) -> None:
    """A column of texts as Arrow's string views, [rows, 16]."""
    for row in range(len(kinds)):
        is_text = kinds[row] == TEXT and not doubtful[row]
        doubtful[row] |= kinds[row] > NULL and not is_text
        put_view(body, begins[row] + 1, ends[row] - begins[row] - 2 if is_text else 0, views[row])


@inner
def _digits(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[int, int, int]:
    """The digits of a well-formed number: (sign, digits as a number or −1 beyond 18 of them, power of ten)."""
    sign, digits, count, power, exponent, exponent_sign = 1, 0, 0, 0, 0, 1
    if body[at] == _MINUS:
        sign = -1
        at += 1
    point = False
    while at < end and body[at] != _LOWER_E and body[at] != _UPPER_E:
        if body[at] == _POINT:
            point = True
        else:
            digits = digits * 10 + (body[at] - _ZERO)
            count += digits > 0
            power -= point
            if count > _DIGITS:
                return sign, -1, 0
        at += 1
    at += 1
    if at < end and (body[at] == _MINUS or body[at] == _PLUS):
        exponent_sign = -1 if body[at] == _MINUS else 1
        at += 1
    while at < end:
        exponent = min(exponent * 10 + (body[at] - _ZERO), 10_000)
        at += 1
    return sign, digits, power + exponent_sign * exponent


@entry
def read_integers(
    body: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    doubtful: npt.NDArray[np.uint8],
) -> None:
    """A column of whole numbers."""
    for row in range(len(kinds)):
        numbers[row] = 0
        if kinds[row] == WHOLE and not doubtful[row]:
            sign, digits, _ = _digits(body, begins[row], ends[row])
            numbers[row] = sign * digits
            doubtful[row] = digits < 0
        else:
            doubtful[row] |= kinds[row] > NULL


@entry
def read_floats(
    body: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.float64],
    doubtful: npt.NDArray[np.uint8],
    deferred: npt.NDArray[np.uint8],
) -> None:
    """A column of numbers; those that one multiplication does not give exactly are marked in `deferred`, [rows]."""
    for row in range(len(kinds)):
        numbers[row], deferred[row] = 0.0, 0
        if kinds[row] < WHOLE or doubtful[row]:
            doubtful[row] |= kinds[row] > NULL
            continue
        sign, digits, power = _digits(body, begins[row], ends[row])
        if digits < 0 or digits > _EXACT_MANTISSA or power < -_EXACT_POWER or power > _EXACT_POWER:
            deferred[row] = 1
        elif digits == 0:
            numbers[row] = -0.0 if sign < 0 and kinds[row] == REAL else 0.0  # -0 is an integer and has no sign
        else:
            value = float(sign * digits)
            numbers[row] = value / _POWERS[-power] if power < 0 else value * _POWERS[power]


@entry
def read_booleans(
    kinds: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], doubtful: npt.NDArray[np.uint8]
) -> None:
    """A column of booleans."""
    for row in range(len(kinds)):
        numbers[row] = kinds[row] == TRUE
        doubtful[row] |= kinds[row] > TRUE


@inner
def _two_digits(body: npt.NDArray[np.uint8], at: int) -> int:
    """Two digits as a number; DOUBTFUL if they are not."""
    if not (_is_digit(body[at]) and _is_digit(body[at + 1])):
        return DOUBTFUL
    return int(body[at] - _ZERO) * 10 + int(body[at + 1] - _ZERO)


@inner
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Hinnant, chrono-compatible date algorithms)."""
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    year_of_era = shifted - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


@inner
def _month_days(year: int, month: int) -> int:
    """The days of a month."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31  # noqa: PLR1714  (numba: no tuple is built)


@inner
def _zone_s(body: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Seconds east of Greenwich of ``Z`` or ``+hh:mm`` up to `end`; _NO_ZONE where it is neither."""
    if end - at == 1 and body[at] == _Z:
        return 0
    if end - at != 6 or body[at + 3] != _COLON or not (body[at] == _PLUS or body[at] == _MINUS):
        return _NO_ZONE
    hours, minutes = _two_digits(body, at + 1), _two_digits(body, at + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return _NO_ZONE
    return (hours * 3600 + minutes * 60) * (-1 if body[at] == _MINUS else 1)


@inner
def _time(body: npt.NDArray[np.uint8], at: int, end: int) -> tuple[bool, int]:
    """``YYYY-MM-DDThh:mm:ss[.ffffff]`` with a zone: (whether it is one, microseconds since 1970)."""
    if end - at < 20 or body[at + 4] != _MINUS or body[at + 7] != _MINUS or body[at + 10] != _T:
        return False, 0
    if body[at + 13] != _COLON or body[at + 16] != _COLON:
        return False, 0
    century, of_century = _two_digits(body, at), _two_digits(body, at + 2)
    month, day = _two_digits(body, at + 5), _two_digits(body, at + 8)
    hour, minute, second = _two_digits(body, at + 11), _two_digits(body, at + 14), _two_digits(body, at + 17)
    year = century * 100 + of_century
    if (
        century < 0
        or of_century < 0
        or year < 1
        or month < 1
        or month > 12
        or day < 1
        or day > _month_days(year, month)
    ):
        return False, 0
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return False, 0
    at += 19
    micros = 0
    if body[at] == _POINT:
        places = 0
        at += 1
        while at < end and _is_digit(body[at]):
            micros = micros * 10 + (body[at] - _ZERO)
            places += 1
            at += 1
        if places != 3 and places != 6:  # noqa: PLR1714  (numba: no tuple is built)
            return False, 0
        micros *= 1000 if places == 3 else 1
    zone_s = _zone_s(body, at, end)
    if zone_s == _NO_ZONE:
        return False, 0
    seconds = _days(year, month, day) * _DAY_S + hour * 3600 + minute * 60 + second - zone_s
    return True, seconds * 1_000_000 + micros


@entry
def read_times(
    body: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    doubtful: npt.NDArray[np.uint8],
) -> None:
    """A column of times, as text or as whole microseconds."""
    for row in range(len(kinds)):
        numbers[row] = 0
        if kinds[row] == TEXT and not doubtful[row]:
            is_time, numbers[row] = _time(body, begins[row] + 1, ends[row] - 1)
            doubtful[row] = not is_time
        elif kinds[row] == WHOLE and not doubtful[row]:
            sign, digits, _ = _digits(body, begins[row], ends[row])
            numbers[row] = sign * digits
            doubtful[row] = digits < 0
        else:
            doubtful[row] |= kinds[row] > NULL
