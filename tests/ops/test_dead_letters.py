"""`headrace dead-letters`: what was set aside is listed, shown, counted, and sent back exactly once."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.errors import IdentityError
from headrace_ops import open_letters
from headrace_ops.cli import main
from headrace_ops.dead_letters import read_box, replay
from headrace_ops.doctor import Verdict, examine
from headrace_ops.open_letters import OpenLetters, count_open
from headrace_schemas.codecs import EventCodec
from headrace_schemas.loading import load_project
from headrace_schemas.stores import kafka
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.journal import Journal
from tests.services import Services
from tests.streams.shop import START_US, VIEWS, Shop

MANY = 900


def run(shop: Shop, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["dead-letters", *arguments, "-p", str(shop.root)], catch_exceptions=False)


def answer(shop: Shop, *arguments: str) -> dict[str, object]:
    result = run(shop, *arguments, "--json")
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_mended_event_counts_once_however_often_it_is_sent_back(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1, seed=61)
    shop.produce(40)
    shop.produce_raw(b"\xff\x01", b"")
    with shop.streaming() as run_:
        shop.wait(run_)
        listed = answer(shop)
        assert (listed["count"], listed["open"]) == (2, 2)
        place = f"{shop.topic}/0/40"
        told = run(shop, "show", place).stdout
        assert "ff 01" in told
        assert "it would be set aside again" in told
        assert run(shop, "show", place, "--raw").stdout_bytes == b"\xff\x01"

        refused = run(shop, "replay", place)
        assert refused.exit_code == 1
        assert "would be set aside again" in refused.stdout

        event = {"id": "mended", "card": "card 1", "shop": 1, "town": "Linz", "amount": 5.0, "at": START_US}
        (tmp_path / "value").write_bytes(EventCodec(shop.loaded.project.event("paid")).encode(event))
        value = ("--value", str(tmp_path / "value"))
        assert answer(shop, "replay", place, *value, "--dry-run")["sent"] == 1
        assert answer(shop, "replay", place, *value)["sent"] == 1
        assert answer(shop, "replay", place, *value) == {"sent": 0, "dry_run": False, "sent_before": 1, "refused": []}
        shop.events.append({**event, "_partition": 0, "_offset": 42})
        shop.wait(run_)
    assert shop.check() > 100
    listed = answer(shop, "list", "--open")
    assert (listed["count"], listed["open"]) == (1, 1)
    assert answer(shop, "show", place)["sent_back"] is not None


def test_what_is_not_said_or_not_there_is_told(services: Services, prefix: str, tmp_path: Path) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    nothing = run(shop, "replay")
    assert nothing.exit_code == 2
    assert "say which" in nothing.stderr
    unknown = run(shop, "show", "nowhere/0/1")
    assert unknown.exit_code == 2
    assert "nowhere/0/1" in unknown.stderr


def set_aside(shop: Shop, count: int, *codes: str) -> None:
    """Events of a negative amount, which a declaration refused that has been mended since; the codes by turns."""
    codec = EventCodec(shop.loaded.project.event("paid"))
    identity = kafka.topic_identity(shop.services.kafka, shop.topic)
    for number in range(count):
        event = {
            "id": f"d{number}",
            "card": "card 1",
            "shop": 1,
            "town": "Linz",
            "amount": -1.0,
            "at": START_US + number,
        }
        shop._producer.produce(shop.topic, codec.encode(event), partition=number % shop.partitions)
    assert shop._producer.flush(20) == 0
    box = DeadLetterBox(shop.services.kafka, shop.namespace, Journal("test", io.StringIO()))
    from headrace_schemas.batches import RawBatch, Reject

    with kafka.TopicReader(shop.services.kafka, shop.topic) as reader:
        raw = RawBatch.from_messages(shop.topic, list(reader.read_to_end()), START_US)
    codes = codes or ("range",)
    reason = "field 'amount': required at least 0"
    rejects = [Reject(row, reason, codes[row % len(codes)]) for row in range(len(raw))]
    box.write(raw, identity.topic_id, rejects)


def test_a_replay_that_is_killed_sends_every_letter_once(services: Services, prefix: str, tmp_path: Path) -> None:
    if services.name != "real":
        pytest.skip("the embedded broker shows records of transactions that were never committed")
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=3, seed=62)
    set_aside(shop, MANY)
    chance = random.Random(62)
    command = [sys.executable, "-m", "headrace_ops", "dead-letters", "replay", "--all", "-p", str(tmp_path)]
    telling = "s = d._send; d._AT_ONCE = 1; d._send = lambda *a: (print('sends', flush=True), s(*a))"
    program = f"import headrace_ops.dead_letters as d, runpy, sys; {telling}; sys.argv = {command[2:]!r}; "
    program += "runpy.run_module('headrace_ops', run_name='__main__')"
    struck = 0
    for _ in range(40):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        left = chance.randrange(1, MANY // 8) if struck < 3 else MANY + 1
        with process.stdout as told:
            while left and (line := told.readline()):
                left -= line == "sends\n"
            if not left:
                process.kill()  # in the middle of a transaction, or just behind it
            told.read()
        if process.wait() == 0:
            break
        struck += 0 < len(read_box(shop.loaded.settings).replayed_us) < MANY
    assert struck > 0
    assert answer(shop, "list", "--open")["count"] == 0
    with kafka.TopicReader(services.kafka, shop.topic) as reader:
        values = Counter(message.value() for message in reader.read_to_end())
    assert len(values) == MANY
    assert set(values.values()) == {2}  # as it came, and as it was sent back


def test_letters_of_a_topic_that_was_made_anew_are_not_sent_into_it(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    set_aside(shop, 3)
    kafka.delete_topics(services.kafka, [shop.topic])
    kafka.ensure_topics(services.kafka, {shop.topic: 1})
    with pytest.raises(IdentityError, match="it was made anew"):
        replay(load_project(shop.root, environ={}).settings, read_box(shop.loaded.settings).letters)


# --- how many are open -----------------------------------------------------------------------------------------------


def test_status_and_doctor_count_open_letters_each_event_once(services: Services, prefix: str, tmp_path: Path) -> None:
    """A worker that starts again writes its dead letters again; that makes no more of them."""
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    assert (open_in_status(shop), open_in_doctor(shop)) == ("none open", (Verdict.WELL, "none open", ""))
    set_aside(shop, 3, "range", "range", "null")
    box = read_box(shop.loaded.settings)
    set_aside(shop, 1, "range", "range", "null")  # the three again, and one more
    assert len(read_box(shop.loaded.settings).letters) == 4

    found = open_in_status(shop)
    assert found == "4 open: 3 range, 1 null"
    verdict, said, remedy = open_in_doctor(shop)
    assert (verdict, said) == (Verdict.NOTE, found)
    assert "headrace dead-letters list" in remedy

    replay(shop.loaded.settings, box.letters[:1])
    assert answer_of_status(shop)["dead_letters"] == {"open": 3, "by_code": {"range": 2, "null": 1}, "complete": True}
    replay(shop.loaded.settings, read_box(shop.loaded.settings).open)
    assert open_in_status(shop) == "none open"


def test_a_record_that_is_no_dead_letter_is_counted_as_what_it_is(
    services: Services, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    set_aside(shop, 1)
    shop._producer.produce(f"{shop.namespace}.dead-letters", b"from somebody else")
    assert shop._producer.flush(20) == 0
    assert count_open(shop.loaded.settings, patience_s=5.0).by_code == {"range": 1, "unreadable": 1}


class Clock:
    """A second for each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_who_has_no_time_to_read_all_says_so(
    services: Services, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(services, prefix, tmp_path, VIEWS, partitions=1)
    set_aside(shop, 20)
    monkeypatch.setattr(open_letters, "time", Clock())
    settings = shop.loaded.settings
    assert count_open(settings, patience_s=8.0) == OpenLetters(9, {"range": 9}, complete=False)
    replay(settings, read_box(settings).letters)
    short = count_open(settings, patience_s=8.0)
    assert (short.open, str(short)) == (0, "too many to count in time")  # not all of the notes were read either
    assert count_open(settings, patience_s=99.0) == OpenLetters(0, {}, complete=True)


def answer_of_status(shop: Shop) -> dict[str, object]:
    result = CliRunner().invoke(main, ["status", "-p", str(shop.root), "--json"], catch_exceptions=False)
    found: dict[str, object] = json.loads(result.stdout)
    return found


def open_in_status(shop: Shop) -> str:
    """What `headrace status` says to people."""
    result = CliRunner().invoke(main, ["status", "-p", str(shop.root)], catch_exceptions=False)
    return next(line.split("dead letters: ")[1] for line in result.stdout.splitlines() if "dead letters: " in line)


def open_in_doctor(shop: Shop) -> tuple[Verdict, str, str]:
    """What `headrace doctor` says."""
    finding = next(finding for finding in examine(str(shop.root)) if finding.what == "dead letters")
    return finding.verdict, finding.found, finding.remedy
