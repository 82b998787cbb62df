"""Fixtures of the training tests."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread_per_fit() -> Iterator[None]:
    """Small fits gain nothing from threads, and their barriers wait long on a machine with other work."""
    with threadpool_limits(1):
        yield
