"""``headrace dead-letters``: the events that broke their contract."""

from __future__ import annotations

import base64
from collections import Counter

import click

from headrace_ops.cli.options import example, json_option, load, project_option
from headrace_ops.cli.output import console, show, table


@click.command("dead-letters", epilog=example("headrace dead-letters --limit 20 -p examples/flights"))
@project_option
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="How many to list, the newest last."
)
@json_option
def command(project: str | None, limit: int) -> None:
    """List the events that broke their contract: where each one lies in its topic, and why it was set aside."""
    from headrace.errors import NotFound
    from headrace_schemas.dead_letters import dead_letter_topic, decode_dead_letter, unique_dead_letters
    from headrace_schemas.stores.kafka import TopicReader

    settings = load(project).settings
    try:
        with TopicReader(settings.kafka, dead_letter_topic(settings.namespace)) as reader:
            messages = list(reader.read_to_end())
    except NotFound:
        messages = []
    letters = list(unique_dead_letters(decode_dead_letter(m.key(), m.value(), _headers(m.headers())) for m in messages))
    letters.sort(key=lambda letter: letter.at_us)
    data = {
        "count": len(letters),
        "by_code": dict(Counter(letter.code for letter in letters)),
        "letters": [
            {
                "topic": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "code": letter.code,
                "reason": letter.reason,
                "value_base64": None if letter.value is None else base64.b64encode(letter.value).decode(),
            }
            for letter in letters[-limit:]
        ],
    }

    def people() -> None:
        rows = [(f"{each.topic}/{each.partition}/{each.offset}", each.code, each.reason) for each in letters[-limit:]]
        if rows:
            table(("event", "code", "reason"), rows)
        console().print(f"{len(letters)} dead letters" + (f", the last {limit} listed" if len(letters) > limit else ""))

    show(data, people)


def _headers(found: object) -> list[tuple[str, bytes | str | None]]:
    # confluent_kafka's types allow a mapping here, which its consumer never gives.
    return list(found) if isinstance(found, list) else []
