"""The table, the JSON and the picture of a measurement of the peers.

What may not live here: measuring.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.benchmarks.peers.contenders import HEADRACE, Contender
from ops.benchmarks.peers.rig import Run
from ops.benchmarks.report import Row, number, row

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


@dataclass(frozen=True, slots=True)
class Line:
    """A contender over one distribution of keys.

    Args:
        contender: who.
        keys: how cards are drawn.
        version: of the peer.
        runs: one per round.
        skipped: why it took no part.
    """

    contender: Contender
    keys: str
    version: str
    runs: tuple[Run, ...] = ()
    skipped: str = ""

    @property
    def rates(self) -> list[float]:
        """Of the rounds that gave one."""
        return [run.rate for run in self.runs if not run.failure]

    @property
    def failure(self) -> str:
        return next((run.failure for run in self.runs if run.failure), "")

    @property
    def wrong(self) -> str:
        """The first wrong value; empty if there is none."""
        return next((run.verdict.example for run in self.runs if run.verdict and run.verdict.wrong), "")


def markdown(lines: Sequence[Line], keys: str) -> str:
    """The lines of one distribution of keys."""
    mine = [line for line in lines if line.keys == keys]
    ours = statistics.median(next((line.rates for line in mine if line.contender == HEADRACE), []) or [0.0])
    out = [
        "| contender | events/s, median | spread | Headrace is | writes | a crash | bytes to Redis per event | memory | values checked |",
        "|---|---:|---:|---:|---|---|---:|---:|---|",
    ]
    return "\n".join(out + [_line(line, ours) for line in mine])


def _line(line: Line, ours: float) -> str:
    who = f"{line.contender.peer}{' ' + line.version if line.version else ''}: {line.contender.how}"
    fixed = f"{line.contender.writes} | {line.contender.keeps}"
    if line.skipped:
        return f"| {who} | skipped: {line.skipped} | | | {fixed} | | | |"
    if not line.rates:
        return f"| {who} | failed: {_last_line(line.failure)} | | | {fixed} | | | |"
    middle = statistics.median(line.rates)
    ratio = f"{ours / middle:.2f} ×" if ours and line.contender != HEADRACE else ""
    last = line.runs[-1]
    written = f"{last.redis_bytes:,.0f}" if last.redis_bytes else ""
    memory = f"{last.memory_bytes / 2**20:,.0f} MB" if last.memory_bytes else ""
    return (
        f"| {who} | {number(middle)} | {number(min(line.rates))} – {number(max(line.rates))} | {ratio} | {fixed} | {written} | {memory} "
        f"| {_checked(line)} |"
    )


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1].replace("|", "/")[:200]


def _checked(line: Line) -> str:
    verdicts = [run.verdict for run in line.runs if run.verdict]
    if not verdicts:
        return ""
    compared, wrong = sum(v.compared for v in verdicts), sum(v.wrong for v in verdicts)
    part = max(run.events for run in line.runs)
    reach = "" if all(run.complete for run in line.runs) else f", of the first {part:,} events"
    return f"{compared:,}{reach}" + (f", **{wrong:,} wrong**" if wrong else ", none wrong")


def rows(lines: Sequence[Line]) -> list[Row]:
    """For the one table of `make bench`: each against Headrace, Headrace against the floor."""
    out: list[Row] = []
    for keys in dict.fromkeys(line.keys for line in lines):
        mine = {line.contender.name: line for line in lines if line.keys == keys}
        headrace = mine.get(HEADRACE.name)
        for line in mine.values():
            if line.rates:
                other = next(iter(mine.values())) if line is headrace else headrace
                reference = (other.contender.name, other.rates) if other and other is not line and other.rates else None
                out.append(
                    row(f"peers, {keys} keys: {line.contender.name}", line.rates, "events/s", reference=reference)
                )
    return out


def document(lines: Sequence[Line], notes: Sequence[str]) -> str:
    """Tables and notes as one piece of Markdown."""
    parts = [f"**{keys} keys**\n\n{markdown(lines, keys)}" for keys in dict.fromkeys(line.keys for line in lines)]
    return "\n\n".join([*parts, *notes])


def as_json(lines: Sequence[Line], notes: Sequence[str]) -> str:
    """Everything, run by run."""
    found = [
        {
            "contender": line.contender.name,
            "version": line.version,
            "keys": line.keys,
            "writes": line.contender.writes,
            "crash": line.contender.keeps,
            "skipped": line.skipped,
            "runs": [asdict(run) for run in line.runs],
        }
        for line in lines
    ]
    return json.dumps({"lines": found, "notes": list(notes)}, indent=1, ensure_ascii=False) + "\n"


def insert(page: Path, text: str) -> None:
    """Put the text between the marks of a page.

    Raises:
        SystemExit: the page has no marks.
    """
    whole = page.read_text()
    if BEGIN not in whole or END not in whole:
        raise SystemExit(f"{page}: required the marks {BEGIN} and {END}, but they are not both there")
    before, after = whole.split(BEGIN)[0], whole.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def picture(lines: Sequence[Line], title: str, file: Path) -> None:
    """A bar per contender and distribution, with the spread, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "headrace"
    names = [
        n for n in dict.fromkeys(line.contender.name for line in lines) if any(_of(lines, n, k) for k in _keys(lines))
    ]
    figure, axes = pyplot.subplots(figsize=(9.5, 0.9 + 0.42 * len(names)), layout="constrained")
    height = 0.8 / len(_keys(lines))
    for place, (keys, colour) in enumerate(zip(_keys(lines), ("#0b6e8f", "#8fbccb"), strict=False)):
        for at, name in enumerate(names):
            if rates := _of(lines, name, keys):
                middle = statistics.median(rates)
                y = at + (place - (len(_keys(lines)) - 1) / 2) * height
                spread = [[middle - min(rates)], [max(rates) - middle]]
                label = f"{keys} keys" if at == 0 else None
                axes.barh(y, middle, height * 0.92, color=colour, xerr=spread, error_kw={"lw": 0.8}, label=label)
                axes.annotate(
                    number(middle), (max(rates), y), (4, 0), textcoords="offset points", va="center", fontsize=7
                )
    axes.set(xscale="log", xlabel="events a second on one core (logarithmic)", title=title, yticks=range(len(names)))
    axes.set_yticklabels(names, fontsize=8)
    for text, name in zip(axes.get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if name == HEADRACE.name else "normal")
    axes.title.set_fontsize(9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=150)
    pyplot.close(figure)


def _keys(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.keys for line in lines))


def _of(lines: Sequence[Line], name: str, keys: str) -> list[float]:
    return next((line.rates for line in lines if line.contender.name == name and line.keys == keys), [])
