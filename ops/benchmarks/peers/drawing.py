"""Bars as an SVG that a browser shows without anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_COLOURS = ("#1f6f8b", "#99c4d8", "#d98c3f", "#7a7a7a")
_LEFT, _WIDTH, _BAR, _GAP = 330, 560, 14, 10


def draw_bars(file: Path, title: str, groups: Sequence[tuple[str, Mapping[str, float]]], unit: str = "") -> None:
    """One group of bars a name, one bar a series; lengths are proportional to the values."""
    series = list(dict.fromkeys(name for _, values in groups for name in values))
    most = max((value for _, values in groups for value in values.values()), default=1.0) or 1.0
    parts, y = [], 64
    for name, values in groups:
        height = _BAR * len(series)
        parts.append(f'<text x="{_LEFT - 10}" y="{y + height / 2 + 4}" text-anchor="end">{escape(name)}</text>')
        for place, one in enumerate(series):
            value = values.get(one, 0.0)
            length = max(_WIDTH * value / most, 0.5)
            top = y + place * _BAR
            parts.append(
                f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR - 2}" fill="{_COLOURS[place % 4]}"/>'
            )
            told = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            parts.append(
                f'<text x="{_LEFT + length + 5:.1f}" y="{top + 10}" font-size="11">{told}{escape(unit)}</text>'
            )
        y += height + _GAP
    legend = "".join(
        f'<rect x="{_LEFT + i * 150}" y="36" width="12" height="12" fill="{_COLOURS[i % 4]}"/>'
        f'<text x="{_LEFT + i * 150 + 18}" y="46">{escape(name)}</text>'
        for i, name in enumerate(series)
    )
    size = f'width="{_LEFT + _WIDTH + 110}" height="{y + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    background = '<rect width="100%" height="100%" fill="white"/>'
    file.write_text(
        f'{head}{background}<text x="10" y="22" font-size="16">{escape(title)}</text>{legend}{"".join(parts)}</svg>\n'
    )
