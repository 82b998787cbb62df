from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import headrace as hr

ERRORS = [
    hr.DefinitionError(required="a", got="b", remedy="c", subject="event 'x'", where=hr.Location("f.py", 3)),
    hr.ConfigError("no"),
    hr.NotFound("view", "a", ["b"]),
    hr.ContractError("amount", "a number", "'x'", row=3),
    hr.CodecError("state", "too short"),
    hr.ServiceUnavailable("Redis", "localhost:6379", "refused", remedy="start it"),
    hr.Fenced("lane 3", "9f"),
    hr.Gap("lane 3", 5, 7),
    hr.Stale("lane 3"),
    hr.IdentityError("t", "id 1", "id 2", "run a backfill"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_crosses_a_process_boundary_with_its_facts(error: hr.HeadraceError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_exit_codes_are_those_of_the_command_line() -> None:
    codes = {type(error).__name__: error.exit_code for error in ERRORS}
    assert {name for name, code in codes.items() if code == 2} == {"ConfigError", "NotFound"}
    assert {name for name, code in codes.items() if code == 3} == {"ServiceUnavailable"}
    assert {code for name, code in codes.items() if name not in ("ConfigError", "NotFound", "ServiceUnavailable")} == {
        1
    }


def test_store_errors_are_told_apart_and_caught_together() -> None:
    for error in (hr.ServiceUnavailable, hr.Fenced, hr.Gap, hr.Stale, hr.IdentityError):
        assert issubclass(error, hr.StoreError)


def test_place_is_shown_relative_to_the_working_directory_only_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(hr.Location(str(tmp_path / "features.py"), 4)) == "features.py:4"
    assert str(hr.Location("/elsewhere/features.py", 4)) == "/elsewhere/features.py:4"


def test_long_lists_of_known_names_are_cut() -> None:
    names = [f"view_{i}" for i in range(30)]
    assert str(hr.NotFound("view", "x", names)).endswith("view_11 and 18 more")
