"""Who takes part: how each is started, what it writes, and what it does not do.

What may not live here: measuring.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
FETCHED = HERE.parent.parent.parent / ".cache" / "peers"
HEAP = "6g"

Writes = Literal[
    "states", "every event", "each 100 ms", "windows as they grow", "closed windows", "nothing", "the same bytes"
]
"""What comes into Redis: "every event" is a value of all windows at each event."""

TILES = ("every event", "each 100 ms")
"""Values of all windows of a card under one key; of the others each window has its own."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the table.

    Args:
        peer: the system.
        how: what of it.
        keeps: what a crash costs, as it is configured here.
        writes: what comes into Redis.
        what: tells the program which variant it is.
        command: starts it, but for the environment; None where it is not installed.
        folder: of the peer in `.cache/peers`; empty for our own programs.
        environment: more variables.
    """

    peer: str
    how: str
    keeps: str
    writes: Writes
    what: str
    command: Callable[[], list[str]]
    folder: str = ""
    sources: str = ""
    environment: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        return f"{self.peer}: {self.how}"

    def missing(self) -> str | None:
        """Why it cannot take part; None if it can."""
        if not self.folder:
            return None
        if not (FETCHED / self.folder / ".complete").exists():
            return "not installed: `make peers`"
        if self.sources:
            if shutil.which("java") is None:
                return "needs `java` (17) on PATH"
            ours = [file for part in ("common", self.sources) for file in (HERE / "jvm" / part).glob("*.java")]
            compiled = FETCHED / self.folder / ".compiled"
            if not compiled.exists() or any(file.stat().st_mtime > compiled.stat().st_mtime for file in ours):
                return "compiled from other sources: `make peers`"
        return None

    def version(self) -> str:
        """Of what was measured."""
        if not self.folder:
            return installed("headrace") if self.peer == "Headrace" else ""
        if self.sources:
            jar = {"kafka-streams": "kafka-streams-", "flink": "flink-streaming-java-"}[self.folder]
            return _version_of(FETCHED / self.folder / "libs", rf"{jar}(\d[0-9.]*)\.jar")
        site = next((FETCHED / self.folder / "lib").glob("python3*/site-packages"))
        return _version_of(site, rf"{self.folder}-(\d[0-9.a-z]*)\.dist-info")


def _version_of(folder: Path, pattern: str) -> str:
    found = [match.group(1) for file in folder.iterdir() if (match := re.fullmatch(pattern, file.name))]
    return found[0] if found else "of unknown version"


def java() -> str:
    """The Java that runs the contenders of the JVM."""
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "([^"]+)"', told)
    return f"Java {found.group(1) if found else 'of unknown version'}"


def _ours(module: str, *arguments: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", module, *arguments]


def _python(folder: str) -> Callable[[], list[str]]:
    return lambda: [str(FETCHED / folder / "bin" / "python"), str(HERE / "python" / f"{folder}_windows.py")]


def _java(folder: str, main: str) -> Callable[[], list[str]]:
    opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util", "time")]
    memory = [f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+UseSerialGC"]
    path = f"{FETCHED / folder / 'classes'}:{FETCHED / folder / 'libs'}/*"
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return lambda: ["java", *memory, *opened, quiet, "-cp", path, main]


FLOOR = Contender(
    "Floor", "consume and decode, no state, no store", "–", "nothing", "consume", _ours("ops.benchmarks.peers.floors")
)
MSET = replace(FLOOR, how="MSET of the bytes that Headrace sent, no events", writes="the same bytes", what="mset")
HEADRACE = Contender(
    "Headrace",
    "exact windows",
    "exactly once",
    "states",
    "headrace",
    _ours("headrace_streams", "--project", str(HERE / "project"), "--role", "stream"),
)
LOGGED = replace(HEADRACE, how="exact windows, its log writer on the services' core", what="headrace-logged")
_FLINK = Contender(
    "Flink",
    "tiles by hand, no checkpoints",
    "loses its state",
    "every event",
    "tiles",
    _java("flink", "FlinkPeer"),
    folder="flink",
    sources="flink",
)
_STREAMS = Contender(
    "Kafka Streams",
    "tiles by hand, at least once",
    "may count twice",
    "every event",
    "tiles",
    _java("kafka-streams", "KafkaStreamsPeer"),
    folder="kafka-streams",
    sources="kafka-streams",
)
_QUIX = Contender(
    "Quix Streams",
    "its tumbling windows",
    "may count twice",
    "closed windows",
    "tumbling",
    _python("quixstreams"),
    folder="quixstreams",
)
_BYTEWAX = Contender(
    "Bytewax",
    "its tumbling windows",
    "loses its state",
    "closed windows",
    "tumbling",
    _python("bytewax"),
    folder="bytewax",
)
_PATHWAY = Contender(
    "Pathway",
    "its tumbling windows",
    "loses its state",
    "windows as they grow",
    "tumbling",
    _python("pathway"),
    folder="pathway",
)

CONTENDERS: tuple[Contender, ...] = (
    FLOOR,
    HEADRACE,
    MSET,
    LOGGED,
    _FLINK,
    replace(
        _FLINK, how="tiles by hand, a checkpoint each second", keeps="exactly once, in effect", what="tiles-checkpoints"
    ),
    replace(
        _FLINK,
        how="tiles by hand, checkpoints, written each 100 ms",
        keeps="exactly once, in effect",
        writes="each 100 ms",
        what="tiles-later",
    ),
    replace(_FLINK, how="its tumbling windows", writes="closed windows", what="tumbling"),
    replace(_FLINK, how="its sliding windows", writes="closed windows", what="hopping"),
    _STREAMS,
    replace(_STREAMS, how="tiles by hand, exactly once", keeps="exact state, a write may be lost", what="tiles-eos"),
    replace(
        _STREAMS,
        how="tiles by hand, exactly once, written each 100 ms",
        keeps="exact state, a write may be lost",
        writes="each 100 ms",
        what="tiles-later",
    ),
    replace(_STREAMS, how="its tumbling windows", writes="windows as they grow", what="tumbling"),
    replace(_STREAMS, how="its hopping windows", writes="windows as they grow", what="hopping"),
    _PATHWAY,
    replace(_PATHWAY, how="its sliding windows", what="hopping"),
    _QUIX,
    replace(_QUIX, how="its hopping windows", what="hopping"),
    _BYTEWAX,
    replace(_BYTEWAX, how="its sliding windows", what="hopping"),
)
"""In the order of each round: the floor first, MSET after Headrace, whose bytes it sends."""

OURS = (HEADRACE, LOGGED)
"""Followed by their commits instead of a counter of their own."""
