"""``headrace dead-letters``: the events that broke their contract; list them, look at one, send them back."""

from __future__ import annotations

import base64
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace_ops.cli.group import EXIT_NO
from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, progress, show, table

if TYPE_CHECKING:
    from headrace_schemas.dead_letters import DeadLetter


class _Listing(click.Group):
    """A group that lists where no other word is said."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    "dead-letters",
    cls=_Listing,
    epilog=example("headrace dead-letters list --code range -p examples/flights"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """List the events that broke their contract, show one, send them back. Without a word it lists."""


@command.command("list", epilog=example("headrace dead-letters list --code range -p examples/flights"))
@project_option
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="How many to list, the newest last."
)
@click.option("--code", help="Only those set aside for this kind of reason, such as range or undecodable.")
@click.option("--topic", help="Only those of this topic.")
@click.option("--open", "only_open", is_flag=True, help="Only those that were not sent back.")
@json_option
def list_(project: str | None, limit: int, code: str | None, topic: str | None, only_open: bool) -> None:
    """List them: where each one lies in its topic, and why it was set aside."""
    from headrace_ops.dead_letters import place_of, read_box

    box = read_box(load(project).settings)
    letters = [letter for letter in (box.open if only_open else box.letters) if _fits(letter, code, topic)]
    data = {
        "count": len(letters),
        "open": sum(letter.id not in box.replayed_us for letter in letters),
        "by_code": dict(Counter(letter.code for letter in letters)),
        "letters": [_facts(letter, box.replayed_us.get(letter.id)) for letter in letters[-limit:]],
    }

    def people() -> None:
        rows = [
            (place_of(one), one.code, "yes" if one.id in box.replayed_us else "", one.reason)
            for one in letters[-limit:]
        ]
        if rows:
            table(("event", "code", "sent back", "reason"), rows)
        more = f", the last {limit} listed" if len(letters) > limit else ""
        console().print(f"{len(letters)} dead letters, {data['open']} of them open{more}")

    show(data, people)


@command.command("show", epilog=example("headrace dead-letters show flights.weather/0/812 -p examples/flights"))
@click.argument("event", metavar="TOPIC/PARTITION/OFFSET")
@project_option
@click.option("--raw", is_flag=True, help="Print the bytes of its value and nothing else; for a file to mend.")
@json_option
def show_(event: str, project: str | None, raw: bool) -> None:
    """Show one whole: times, reason, key and value as they came, and whether it would be set aside again today."""
    from headrace_ops.dead_letters import place_of, read_box, still_broken

    loaded = load(project)
    box = read_box(loaded.settings)
    letter = box.find(event)
    if raw:
        sys.stdout.buffer.write(letter.value or b"")
        return
    why = still_broken(loaded, letter)
    data = _facts(letter, box.replayed_us.get(letter.id)) | {
        "key_base64": None if letter.key is None else base64.b64encode(letter.key).decode(),
        "timestamp": _time(letter.timestamp_us),
        "set_aside": _time(letter.at_us),
        "still_broken": why,
    }

    def people() -> None:
        sent = box.replayed_us.get(letter.id)
        rows = [
            ("event", place_of(letter)),
            ("reason", f"{letter.reason} ({letter.code})"),
            ("Kafka's time", _time(letter.timestamp_us) if letter.timestamp_us >= 0 else "none"),
            ("set aside", _time(letter.at_us)),
            ("sent back", "no" if sent is None else _time(sent)),
            ("today", f"it would be set aside again: {why}" if why else "it would be accepted"),
            ("key", _readable(letter.key)),
            ("value", _readable(letter.value)),
        ]
        table(("", place_of(letter)), rows[1:])

    show(data, people)


@command.command("replay", epilog=example("headrace dead-letters replay --code range -p examples/flights"))
@click.argument("events", metavar="[TOPIC/PARTITION/OFFSET]...", nargs=-1)
@project_option
@click.option("--code", help="Those set aside for this kind of reason.")
@click.option("--topic", help="Those of this topic.")
@click.option("--all", "everything", is_flag=True, help="All that are open.")
@click.option("--value", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Send the bytes of this file instead; for one event.")  # fmt: skip
@click.option("--again", is_flag=True, help="Also those that were sent back already.")
@click.option("--broken", is_flag=True, help="Also those that would be set aside again.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@json_option
def replay_(
    events: tuple[str, ...], project: str | None, code: str | None, topic: str | None, everything: bool,
    value: Path | None, again: bool, broken: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Send events back to their topics, each once, however often this is called and wherever it is killed.

    What would be set aside again is not sent: mend its declaration, or its value with --value. An event arrives anew: it counts
    from now on, late if its time says so.
    """
    from headrace_ops.dead_letters import mended, place_of, read_box, replay, still_broken

    if not (events or code or topic or everything):
        raise click.UsageError("say which: events as `headrace dead-letters` lists them, --code, --topic, or --all")
    if value is not None and len(events) != 1:
        raise click.UsageError("--value mends one event; name exactly one")
    loaded = load(project)
    box = read_box(loaded.settings)
    chosen = [box.find(place) for place in events] or [one for one in box.letters if _fits(one, code, topic)]
    if value is not None:
        chosen = [mended(chosen[0], value.read_bytes())]
    known = [letter for letter in chosen if not again and letter.id in box.replayed_us]
    reasons = {letter.id: still_broken(loaded, letter) for letter in chosen if letter not in known}
    refused = [] if broken else [letter for letter in chosen if reasons.get(letter.id)]
    sending = [letter for letter in chosen if letter not in known and letter not in refused]
    with progress() as tell:
        sent = len(sending) if dry_run else replay(loaded.settings, sending, tell) if sending else 0
    data = {
        "sent": sent,
        "dry_run": dry_run,
        "sent_before": len(known),
        "refused": [{"event": place_of(letter), "reason": reasons[letter.id]} for letter in refused],
    }

    def people() -> None:
        if refused:
            table(("event", "would be set aside again"), [(place_of(one), str(reasons[one.id])) for one in refused])
        verb = "would be sent" if dry_run else "sent back"
        console().print(f"{sent} {verb}, {len(known)} were before, {len(refused)} are still broken")

    show(data, people)
    sys.exit(EXIT_NO if refused else 0)


def _fits(letter: DeadLetter, code: str | None, topic: str | None) -> bool:
    return (code is None or letter.code == code) and (topic is None or letter.topic == topic)


def _facts(letter: DeadLetter, replayed_us: int | None) -> dict[str, object]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "code": letter.code,
        "reason": letter.reason,
        "sent_back": None if replayed_us is None else _time(replayed_us),
        "value_base64": None if letter.value is None else base64.b64encode(letter.value).decode(),
    }


def _time(us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _readable(data: bytes | None) -> str:
    """As text where it is text, else in hexadecimal."""
    if data is None:
        return "none"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data.hex(" ")
    return text if text.isprintable() else data.hex(" ")
