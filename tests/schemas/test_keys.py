"""Entity keys and the names of Redis keys: both sides build the same bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import CodecError, ContractError
from headrace.kernel import hash_keys
from headrace_schemas.keys import ViewKeys, decode_key, encode_key, encode_keys

KEYS = ViewKeys.of("flights", "origin_departures", "1f0c9a7be2d45c66", 16)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGER = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(st.tuples(TEXT, INTEGER, TEXT), max_size=30), st.sampled_from([["a"], ["b"], ["a", "b"], ["c", "a", "b"]])
)
def test_keys_of_a_batch_are_those_of_its_rows(rows: list[tuple[str, int, str]], fields: list[str]) -> None:
    schema = {"a": pl.String, "b": pl.Int64, "c": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    data, offsets = encode_keys(frame, fields)
    found = [data[start:end].tobytes() for start, end in pairwise(offsets)]
    assert found == [encode_key(row) for row in frame.select(fields).iter_rows()]


@given(st.lists(TEXT | INTEGER, min_size=1, max_size=4))
def test_a_key_can_be_read_back(values: list[str | int]) -> None:
    assert decode_key(encode_key(values), [type(value) for value in values]) == tuple(values)


def test_two_keys_never_share_their_bytes_by_shifting_text_between_fields() -> None:
    assert encode_key(["a", "bc"]) != encode_key(["ab", "c"])


def test_a_sliced_batch_has_the_keys_of_its_own_rows() -> None:
    frame = pl.DataFrame({"a": ["one", "two", "three", "four"]})[1:3]
    data, offsets = encode_keys(frame, ["a"])
    assert (data.tobytes(), offsets.tolist()) == (b"twothree", [0, 3, 8])


@pytest.mark.parametrize("value", [None, 1.5, True, 2**63, b"bytes"])
def test_only_text_and_64_bit_integers_are_keys(value: object) -> None:
    with pytest.raises(ContractError, match="required text or a 64-bit integer, got"):
        encode_key([value])  # type: ignore[list-item]


def test_a_text_that_utf_8_cannot_hold_is_no_key() -> None:
    with pytest.raises(ContractError, match="required text that UTF-8 can hold"):
        encode_key(["\ud800"])


def test_a_key_is_at_most_1024_bytes_in_all() -> None:
    assert len(encode_key(["x" * 1024])) == 1024
    message = r"field 'entity key': required at most 1024 bytes in all, got 1025 bytes"
    with pytest.raises(ContractError, match=message):
        encode_key(["x" * 1025])
    with pytest.raises(ContractError, match="row 1, " + message):
        encode_keys(pl.DataFrame({"a": ["x", "x" * 1025]}), ["a"])
    with pytest.raises(ContractError, match="row 0, .*at most 1024 bytes"):
        encode_keys(pl.DataFrame({"a": ["x" * 70_000], "b": [1]}), ["a", "b"])


def test_a_null_or_a_column_of_another_type_is_no_key() -> None:
    with pytest.raises(ContractError, match="row 1, field 'a': required an entity key that is not null, got null"):
        encode_keys(pl.DataFrame({"a": ["x", None]}), ["a"])
    with pytest.raises(ContractError, match="field 'a': required a text or integer column as entity key, got Float64"):
        encode_keys(pl.DataFrame({"a": [1.0]}), ["a"])


@pytest.mark.parametrize(
    ("key", "types"), [(b"1234567", [int]), (b"\xff", [str]), (b"\x05\x00ab\x01\x00c", [str, str])]
)
def test_bytes_that_are_no_key_are_refused(key: bytes, types: list[type]) -> None:
    with pytest.raises(CodecError, match="entity key: "):
        decode_key(key, types)


def test_an_entity_s_name_carries_its_lane_as_the_hash_tag() -> None:
    key = encode_key(["JFK"])
    lane = KEYS.lane_of(int(hash_keys(np.frombuffer(key, np.uint8), np.array([0, 3], np.int64))[0]))
    assert KEYS.locate(key) == b"{flights:origin_departures:1f0c9a7be2d45c66:%d}sJFK" % lane
    assert KEYS.locate(key) == KEYS.state_key(lane, key)
    assert KEYS.lane_key(lane).startswith(KEYS.locate(key).partition(b"}")[0])


def test_lanes_share_the_entities_about_evenly() -> None:
    data, offsets = encode_keys(pl.DataFrame({"a": range(20_000)}), ["a"])
    counts = np.bincount(KEYS.lanes_of(hash_keys(data, offsets)), minlength=16)
    assert counts.min() > 1100
    assert counts.max() < 1400
