"""The benchmark of the peers: its oracle is the product's specification, it notices wrong values, and it hides nobody."""

from __future__ import annotations

import json
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.oracle import naive
from headrace_schemas.loading import load_project
from ops.benchmarks.peers import contenders
from ops.benchmarks.peers.contenders import CONTENDERS, FLOOR, HEADRACE, HERE, Contender
from ops.benchmarks.peers.oracle import Oracle, Verdict, aggregate
from ops.benchmarks.peers.rig import Run, rate_of, windows
from ops.benchmarks.peers.table import Line, document, insert, markdown, picture, rows
from ops.benchmarks.stream import Payments, card_name, payments

EVENTS = 20_000
[VIEW] = load_project(HERE / "project", {}).project.views
WINDOWS = windows(VIEW)


@pytest.fixture(scope="module")
def topic() -> Payments:
    return payments(EVENTS, "zipf", cards=2_000)


@pytest.fixture(scope="module")
def oracle(topic: Payments) -> Oracle:
    return Oracle(topic, WINDOWS)


def features(oracle: Oracle, card: str, at_us: int) -> bytes:
    return struct.pack(">q16d", at_us, *oracle.features(card, at_us))


def test_the_oracle_is_the_specification_of_the_windows(topic: Payments, oracle: Oracle) -> None:
    names = [f"{what}_{window}" for window in ("10m", "1h", "24h", "7d") for what in ("n", "total", "least", "most")]
    compared = 0
    for card in oracle.cards[::20]:
        rows = [int(row) for row in range(EVENTS) if card_name(topic.card[row]) == card]
        for last in {rows[0], rows[len(rows) // 2], rows[-1]}:
            records = [
                {"card": card, "paid_at": int(topic.paid_at_us[row]), "amount": float(topic.amount[row])}
                | {"merchant": "", "device": "", "_partition": 0, "_offset": row}
                for row in rows
                if row <= last
            ]
            expected = naive(VIEW, records, {"card": card}, int(topic.paid_at_us[last]))
            found = oracle.features(card, int(topic.paid_at_us[last]))
            assert found == pytest.approx([expected[name] for name in names], rel=1e-12)
            compared += len(names)
    assert compared > 400


def test_right_values_are_found_right_and_a_wrong_one_wrong(oracle: Oracle) -> None:
    values: dict[str, bytes | None] = {card: features(oracle, card, oracle.newest_us(card)) for card in oracle.cards}
    assert oracle.judge_features(values, complete=True) == Verdict(16 * len(values), 0)
    card = oracle.cards[3]
    at_us, *right = struct.unpack(">q16d", values[card] or b"")
    values[card] = struct.pack(">q16d", at_us, right[0] + 1, *right[1:])
    found = oracle.judge_features(values, complete=True)
    assert found.wrong == 1
    assert card in found.example


def test_a_value_of_an_earlier_event_is_right_until_all_events_are_done(topic: Payments, oracle: Oracle) -> None:
    card = max(oracle.cards, key=lambda each: oracle.features(each, oracle.newest_us(each))[12])
    first_us = int(topic.paid_at_us[[card_name(number) == card for number in topic.card]][0])
    values = {card: features(oracle, card, first_us)}
    assert oracle.judge_features(values, complete=False).wrong == 0
    assert oracle.judge_features(values, complete=True).wrong == 16


def test_a_card_without_a_value_is_wrong_only_when_all_events_are_done(oracle: Oracle) -> None:
    assert oracle.judge_features({oracle.cards[0]: None}, complete=False) == Verdict(0, 0)
    assert oracle.judge_features({oracle.cards[0]: None}, complete=True).wrong == 1


def test_a_closed_window_that_misses_an_event_is_wrong_and_a_growing_one_is_not(
    topic: Payments, oracle: Oracle
) -> None:
    card = max(oracle.cards, key=lambda each: oracle.features(each, oracle.newest_us(each))[12])
    mine = np.array([card_name(number) == card for number in topic.card])
    length = WINDOWS[3][0]
    start_us = int(topic.paid_at_us[mine][0]) // length * length
    inside = topic.amount[mine & (topic.paid_at_us >= start_us) & (topic.paid_at_us < start_us + length)]
    all_of_it = struct.pack(">q4d", start_us, *aggregate(inside))
    all_but_one = struct.pack(">q4d", start_us, *aggregate(inside[:-1]))
    assert oracle.judge_windows({(card, 3): all_of_it}, closed=True) == Verdict(4, 0)
    assert oracle.judge_windows({(card, 3): all_but_one}, closed=False).wrong == 0
    assert oracle.judge_windows({(card, 3): all_but_one}, closed=True).wrong >= 2


def test_the_events_are_the_same_each_time_and_follow_their_keys() -> None:
    once, again = payments(5_000, "zipf"), payments(5_000, "zipf")
    assert (once.card == again.card).all()
    assert (once.amount == again.amount).all()
    hottest = np.bincount(once.card).max() / 5_000
    assert hottest > 0.05
    assert np.bincount(payments(5_000, "uniform").card).max() < 10


def test_a_rate_leaves_out_the_first_third_of_the_events_or_of_the_time() -> None:
    slow_start = [(0.0, 1), (10.0, 300), (11.0, 400), (12.0, 600), (13.0, 900)]
    assert rate_of(slow_start, seconds=60.0) == (pytest.approx(600 / 3), "")
    cut_off = [(0.0, 1), (3.0, 30), (5.0, 35), (9.0, 55)]
    assert rate_of(cut_off, seconds=9.0) == (pytest.approx(25 / 6), "")


def lines() -> list[Line]:
    run = Run(1000.0, EVENTS, complete=True, verdict=Verdict(16, 0))
    slower = replace(run, rate=250.0)
    flink, other = CONTENDERS[3], CONTENDERS[4]
    return [
        Line(FLOOR, "zipf", "", (replace(run, rate=2000.0, verdict=None),)),
        Line(HEADRACE, "zipf", "1.0", (run, run)),
        Line(flink, "zipf", "2.3.0", (slower, replace(slower, rate=500.0), slower)),
        Line(other, "zipf", "", skipped="not installed: `make peers`"),
        Line(CONTENDERS[5], "zipf", "2.3.0", (Run(failure="first line\nit broke"),)),
    ]


def test_the_table_has_a_row_for_each_also_for_who_lost_was_skipped_or_failed() -> None:
    text = markdown(lines(), "zipf")
    assert len(text.splitlines()) == 2 + 5
    assert "| 250 | 250 – 500 | 4.00 × |" in text
    assert "0.50 ×" in text  # Headrace against the floor
    assert "skipped: not installed: `make peers`" in text
    assert "failed: it broke" in text


def test_a_wrong_value_is_printed_in_the_table() -> None:
    wrong = Run(1000.0, EVENTS, complete=True, verdict=Verdict(16, 2, "card1: 3 expected, 2 came"))
    line = Line(CONTENDERS[3], "zipf", "", (wrong,))
    assert "**2 wrong**" in markdown([line], "zipf")
    assert line.wrong == "card1: 3 expected, 2 came"


def test_the_rows_for_all_benchmarks_are_ratios_to_headrace_and_its_own_is_to_the_floor() -> None:
    found = {row.what: row for row in rows(lines())}
    assert found[f"peers, zipf keys: {HEADRACE.name}"].ratio == 0.5
    assert found[f"peers, zipf keys: {CONTENDERS[3].name}"].ratio == 0.25
    assert len(found) == 3


def test_the_text_goes_between_the_marks_of_the_page_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- peers: begin -->\nold\n<!-- peers: end -->\nafter\n")
    insert(page, document(lines(), ["a note"]))
    assert page.read_text().startswith("before\n<!-- peers: begin -->\n\n**zipf keys**")
    assert page.read_text().endswith("a note\n\n<!-- peers: end -->\nafter\n")
    assert "old" not in page.read_text()
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="required the marks"):
        insert(page, "text")


def test_the_picture_shows_every_measured_contender(tmp_path: Path) -> None:
    file = tmp_path / "peers.svg"
    picture(lines(), "a title", file)
    drawn = file.read_text()
    assert drawn.count("<!-- ") >= 5  # one comment per piece of text
    for line in lines():
        assert (f"<!-- {line.contender.name} -->" in drawn) == bool(line.rates)


def test_a_peer_that_is_not_installed_is_named_and_a_program_older_than_its_source_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "FETCHED", tmp_path)
    monkeypatch.setattr("shutil.which", lambda program: program)
    bytewax, flink = (next(each for each in CONTENDERS if each.folder == folder) for folder in ("bytewax", "flink"))
    assert bytewax.missing() == "not installed: `make peers`"
    for peer in (bytewax, flink):
        (tmp_path / peer.folder).mkdir()
        (tmp_path / peer.folder / ".complete").touch()
    assert bytewax.missing() is None
    assert flink.missing() == "compiled from other sources: `make peers`"
    (tmp_path / "flink" / ".compiled").touch()
    assert flink.missing() is None


def test_contenders_have_names_of_their_own_and_their_programs_are_there() -> None:
    assert len({each.name for each in CONTENDERS}) == len(CONTENDERS)
    for each in CONTENDERS:
        assert _program(each).exists()


def _program(contender: Contender) -> Path:
    if contender.sources:
        return HERE / "jvm" / contender.sources / f"{contender.command()[-1]}.java"
    return HERE / "python" / f"{contender.folder}_windows.py" if contender.folder else HERE


def test_fetching_an_unknown_peer_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(HERE / "fetch.sh"), "python3", str(tmp_path), "spark"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "no peer is called 'spark'\n"


def test_the_published_measurement_is_the_one_in_the_page() -> None:
    """The page, the JSON and the picture are written together."""
    docs = HERE.parent.parent.parent / "docs"
    published = json.loads((docs / "benchmarks-peers.json").read_text())
    page = (docs / "benchmarks.md").read_text()
    for note in published["notes"]:
        assert note in page
    for line in published["lines"]:
        assert line["contender"].partition(": ")[2] in page
    assert (docs / "benchmarks-peers.svg").exists()
