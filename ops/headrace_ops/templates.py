"""The template of a new project: small enough to be read whole, complete enough to run."""

from __future__ import annotations

import re
from pathlib import Path

from headrace.errors import ConfigError

_SETTINGS = """\
[project]
name = "{name}"
definitions = "features.py"

[kafka]
bootstrap_servers = "localhost:9092"

[redis]
url = "redis://localhost:6379/0"
"""

_FEATURES = '''\
"""What {name} knows of its orders: one event, one entity, one feature view. Change it, then run `headrace check`."""

import headrace as hr

orders = hr.Event(
    "orders",
    topic="{name}.orders",
    time="ordered_at",
    id="order_id",
    format="json",
    fields={{
        "order_id": hr.string(),
        "ordered_at": hr.timestamp(),
        "customer": hr.string(),
        "amount": hr.float64(quantum="0.01", ge=0),
    }},
)

customer = hr.Entity("customer", keys={{"customer": hr.string()}})

customer_orders = hr.FeatureView(
    "customer_orders",
    entity=customer,
    event=orders,
    features={{
        "orders": hr.count().over("10m", "1h", "7d"),
        "amount": hr.sum("amount").over("1h", "7d"),
        "big_share": hr.count(where=hr.col("amount") > 100).over("7d") / hr.count().over("7d"),
    }},
)
'''


def write_project(directory: Path) -> list[Path]:
    """Write the template into a directory, which is made if it is missing.

    Raises:
        ConfigError: a file is there already, the name does not suit topics, or the place cannot be written.
    """
    name = directory.resolve().name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ConfigError(
            f"{directory}: a project's name is letters, digits, - and _, and begins with a letter, because topics begin with it; "
            f"got {name!r}; choose another directory"
        )
    files = {directory / "headrace.toml": _SETTINGS, directory / "features.py": _FEATURES}
    for file in files:
        if file.exists():
            raise ConfigError(
                f"{file}: a new project overwrites nothing, but the file is there; choose another directory"
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            file.write_text(text.format(name=name), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{directory}: it must be writable, but {error.strerror or error}; choose another place"
        ) from error
    return list(files)
