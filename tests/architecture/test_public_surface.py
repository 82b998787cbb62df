"""The public names of the core change on purpose only."""

from __future__ import annotations

import headrace
from tests.architecture.surface import FILE, surface


def test_the_public_surface_is_the_recorded_one() -> None:
    assert surface().splitlines() == FILE.read_text().splitlines(), "changed on purpose? `make surface` records it"


def test_every_public_name_exists_and_is_documented() -> None:
    for name in headrace.__all__:
        value = getattr(headrace, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), name


def test_public_names_are_sorted_once_each() -> None:
    assert len(set(headrace.__all__)) == len(headrace.__all__)
