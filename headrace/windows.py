"""Windows and the ladder of tiles under them.

A window W on tiles of g, read at t, covers the whole tiles floor((t - W) / g) ... floor(t / g): at least W back, less than W + g.

    W = 60, g = 10, read at t = 61                        t-W = 1                                  t = 61
                                                            v                                       v
    tiles floor(1/10) = 0 ... floor(61/10) = 6      |0     .   |10  |20  |30  |40  |50  |60    .    |70
    events at 3, 41, 58, 65: all four count              3               41    58      65

All windows of a view share one ladder: at most five tile sizes, each a multiple of the one below, so that one event touches at
most five tiles however many windows there are. Unless a tile is declared, g <= W / 48.

What may not live here: state, events, or anything compiled. Everything is integer microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.durations import DAY, HOUR, MILLISECOND, MINUTE, SECOND, format_us
from headrace.errors import DefinitionError

MAX_LEVELS: Final = 5
TILES_PER_WINDOW: Final = 48
"""A tile that is not declared is at most its window divided by this."""
MAX_TILES: Final = 4096
"""More tiles than this in one window would make a state of megabytes."""

# Sizes that people recognise on a clock, all of which divide a day (or are whole days).
NICE_US: Final[tuple[int, ...]] = (
    *(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(n * MILLISECOND for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(n * SECOND for n in (1, 2, 5, 10, 15, 20, 30)),
    *(n * MINUTE for n in (1, 2, 3, 5, 6, 10, 12, 15, 20, 30)),
    *(n * HOUR for n in (1, 2, 3, 4, 6, 8, 12)),
    *(n * DAY for n in (1, 2, 4, 7, 14, 28, 56, 112, 224, 448, 896)),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A span of event time that ends when it is read.

    Args:
        us: its length in microseconds.
        text: how it was written; it names the feature ("24h" never becomes "1d").
    """

    us: int
    text: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """The tile sizes of a view, and the tile of each window.

    Args:
        tiles_us: rising tile sizes, each a multiple of the one before.
        level: the index into `tiles_us` for each window length.
    """

    tiles_us: tuple[int, ...]
    level: Mapping[int, int]

    def tile_us(self, window_us: int) -> int:
        """The tile of a window; a window is exact to less than one tile at its far edge."""
        return self.tiles_us[self.level[window_us]]


def build_ladder(windows_us: Sequence[int], tile: int | Mapping[int, int] | None = None) -> Ladder:
    """Choose the tiles for some windows.

    Args:
        windows_us: the window lengths; order and repetition do not matter.
        tile: nothing (every tile is at most W/48), one tile for all windows, or tiles for some of them.

    Raises:
        DefinitionError: a tile is longer than its window, makes more than 4096 tiles in it, or does not fit the others.

    The result is the one with the fewest tiles to keep, and among those the one with the larger tiles; O(levels · sizes²).

    >>> ladder = build_ladder([1_800_000_000, 10_800_000_000, 86_400_000_000])
    >>> [format_us(g) for g in ladder.tiles_us]
    ['30s', '3m', '30m']
    """
    lengths = sorted(set(windows_us))
    declared = _declared(lengths, tile)
    if not lengths:
        return Ladder((), {})
    chain = _cheapest_chain([length for length in lengths if length not in declared], frozenset(declared.values()))
    if chain is None:
        raise _unfit(declared)
    tile_of = {length: declared.get(length) or _rung(chain, length) for length in lengths}
    used = sorted(set(tile_of.values()))
    return Ladder(tuple(used), {length: used.index(size) for length, size in tile_of.items()})


def _declared(lengths: Sequence[int], tile: int | Mapping[int, int] | None) -> dict[int, int]:
    if tile is None:
        return {}
    tiles = dict(tile) if isinstance(tile, Mapping) else dict.fromkeys(lengths, tile)
    for window, size in tiles.items():
        _check(window, size, lengths)
    return tiles


def _check(window: int, size: int, lengths: Sequence[int]) -> None:
    if window not in lengths:
        known = ", ".join(repr(format_us(length)) for length in lengths) or "none"
        raise DefinitionError(
            required="a tile is declared for a window of the view",
            got=f"tile '{format_us(size)}' is for a window '{format_us(window)}' that no feature uses",
            remedy=f"declare it for one of {known}",
        )
    if not 0 < size <= window:
        raise DefinitionError(
            required="a window is at least as long as its tile, and a tile longer than nothing",
            got=f"window '{format_us(window)}' is shorter than its tile '{format_us(size)}'"
            if size > 0
            else f"the tile of window '{format_us(window)}' is '{format_us(size)}'",
            remedy=f"declare tile='{format_us(_natural(window))}' or a window of at least '{format_us(max(size, 1))}'",
        )
    if window // size > MAX_TILES:
        raise DefinitionError(
            required=f"a window has at most {MAX_TILES} tiles",
            got=f"window '{format_us(window)}' has {window // size:,} of '{format_us(size)}'",
            remedy=f"declare a tile of at least '{format_us(_at_least(window / MAX_TILES))}' for it",
        )


def _natural(window: int) -> int:
    """The largest nice size of which a window has at least 48."""
    return max((size for size in NICE_US if size * TILES_PER_WINDOW <= window), default=1)


def _at_least(size: float) -> int:
    return min((nice for nice in NICE_US if nice >= size), default=NICE_US[-1])


def _rung(chain: Sequence[int], window: int) -> int:
    return max(size for size in chain if size * TILES_PER_WINDOW <= window or size == 1)


def _cheapest_chain(windows: Sequence[int], required: frozenset[int]) -> tuple[int, ...] | None:
    """The cheapest rising chain of sizes that divide each other, holds the required ones and serves the windows.

    Dynamic programming over (last size, levels left): what follows a size does not depend on what came before it. A window
    uses the largest size that is at most W/48, so two neighbours of the chain say which windows the lower one serves.
    """
    sizes = sorted({size for size in (*NICE_US, 1) if size <= _natural(max(windows, default=0))} | required)
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]] | None] = {}

    def after(i: int, levels_left: int) -> tuple[float, tuple[int, ...]] | None:
        if (i, levels_left) not in best:
            best[i, levels_left] = cheapest(i, levels_left)
        return best[i, levels_left]

    def cheapest(i: int, levels_left: int) -> tuple[float, tuple[int, ...]] | None:
        here = sizes[i]
        options: list[tuple[float, tuple[int, ...]]] = []
        if not any(size > here for size in required):
            options.append((_cost(windows, here, None), (here,)))
        for j in range(i + 1, len(sizes)) if levels_left > 1 else ():
            if sizes[j] % here == 0 and (rest := after(j, levels_left - 1)) is not None:
                options.append((_cost(windows, here, sizes[j]) + rest[0], (here, *rest[1])))
            if sizes[j] in required:
                break
        # Of equally cheap chains the one with larger tiles: it keeps fewer bytes for sparse entities.
        return min(options, key=lambda option: (option[0], [-size for size in option[1]]), default=None)

    first = [i for i, size in enumerate(sizes) if size <= min(required, default=size)]
    starts = [
        found
        for i in first
        if all(window >= sizes[i] * TILES_PER_WINDOW or sizes[i] == 1 for window in windows)
        and (found := after(i, MAX_LEVELS)) is not None
        and found[0] < float("inf")
    ]
    return min(starts, key=lambda option: (option[0], [-size for size in option[1]]), default=(0, None))[1]


def _cost(windows: Sequence[int], size: int, above: int | None) -> float:
    """Tiles kept for the windows that this size serves, plus what one more level costs every event."""
    served = [w for w in windows if (size * TILES_PER_WINDOW <= w or size == 1)]
    if above is not None:
        served = [w for w in served if w < above * TILES_PER_WINDOW]
    if not served:
        return 0
    tiles = max(served) // size
    return float("inf") if tiles > MAX_TILES else tiles + _LEVEL_COST_TILES


_LEVEL_COST_TILES: Final = 16
"""Updating one more tile per event weighs as much as keeping this many more tiles; so "1h" and "2h" share a level."""


def _unfit(declared: Mapping[int, int]) -> DefinitionError:
    written = ", ".join(f"'{format_us(window)}': '{format_us(size)}'" for window, size in sorted(declared.items()))
    return DefinitionError(
        required=f"the tiles of a view form one ladder of at most {MAX_LEVELS} sizes, each a multiple of the one below",
        got=f"no such ladder holds the declared tiles {{{written}}} and a tile of at most W/{TILES_PER_WINDOW} for the others",
        remedy="declare tiles that divide each other, such as '10s', '1m', '10m', '1h', or one tile for all windows",
    )
