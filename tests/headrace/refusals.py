"""What the tests of refused declarations share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

import headrace as hr
from tests.headrace import declared

#: What is declared, and the message with HERE for the place.
Cases: TypeAlias = dict[str, tuple[Callable[[], object], str]]


def named(**groups: Cases) -> list[object]:
    """The cases as parameters of a test."""
    return [
        pytest.param(*case, id=f"{group}: {name}") for group, cases in groups.items() for name, case in cases.items()
    ]


def refusal(declaration: Callable[[], object], file: str) -> str:
    """The message of a refused declaration, with HERE for each place; the place is the user's own line."""
    with pytest.raises(hr.DefinitionError) as caught:
        declaration()
    # The helpers of ``declared`` are user code as well.
    files = [Path(file).resolve(), Path(declared.__file__).resolve()]
    assert Path(caught.value.where.file).resolve() in files
    message = str(caught.value)
    for path in files:
        first, *others = message.split(str(hr.Location(str(path), 0)).removesuffix("0"))
        message = "HERE".join([first, *(part.lstrip("0123456789") for part in others)])
    return message
