"""Fixtures of all tests: the services, and names that no other test uses.

`services` runs a test once on the embedded stack and once on real services, with an empty store; `shared_services` is
the same for fixtures of a wider scope, which must keep to their own topics and keys; `prefix` is a topic prefix that no
other test has.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.services import NAMES, Absent, Finder, Services, empty, required

# The same examples on every run and machine; a found failure is kept as an explicit example, not in a database.
settings.register_profile(
    "headrace", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("headrace")

RAN = "services"
ABSENT = "services absent"


@pytest.fixture(scope="session")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finder]:
    """What starts services when a test first asks for them."""
    found = Finder(tmp_path_factory.mktemp("services"))
    yield found
    found.close()


@pytest.fixture(scope="session", params=NAMES)
def shared_services(request: pytest.FixtureRequest, finder: Finder) -> Services:
    """Services for fixtures of module or session scope. Nobody empties the store for them: use keys of your own."""
    try:
        return finder.get(request.param)
    except Absent as absent:
        reason = str(absent)
    if required():
        pytest.fail(f"HEADRACE_TEST_REQUIRE={','.join(sorted(required()))}, but {reason}", pytrace=False)
    pytest.skip(f"{request.param} services: {reason}")


@pytest.fixture
def services(shared_services: Services) -> Services:
    """Services for one test: the store is empty, the broker holds other tests' topics beside yours (see `prefix`)."""
    empty(shared_services.redis)
    return shared_services


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A topic prefix that no other test and no earlier run has, such as ``late_event_lands.3f9a01.``."""
    name = re.sub(r"[^a-z0-9]+", "_", request.node.originalname.removeprefix("test_").lower())[:40].strip("_")
    return f"{name}.{secrets.token_hex(3)}."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Write on each test's report which services it ran on, or why it could not."""
    try:
        return (yield)
    except pytest.skip.Exception as skipped:
        name = _services_of(item)
        if name and str(skipped.msg).startswith(f"{name} services: "):
            item.user_properties.append((ABSENT, str(skipped.msg)))
        raise
    finally:
        used = getattr(item, "funcargs", {}).get("shared_services")
        if isinstance(used, Services):
            item.user_properties.append((RAN, f"{used.name} ({used.description})"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which services the tests ran on, and how many tests on each."""
    ran: Counter[str] = Counter()
    absent: Counter[str] = Counter()
    neither = 0
    for outcome in ("passed", "failed", "skipped", "error", "xfailed"):
        for report in terminalreporter.getreports(outcome):
            if isinstance(report, pytest.CollectReport):
                continue  # a file that could not be collected ran nothing
            told = dict(report.user_properties)
            if ABSENT in told:
                absent[str(told[ABSENT])] += 1
            elif RAN in told and report.when == "call":
                ran[str(told[RAN])] += 1
            elif report.when == "call":
                neither += 1
    terminalreporter.section("services")
    names = ", ".join(sorted(ran)) or "none was needed"
    terminalreporter.write_line(f"services: {names}")
    for name, count in sorted(ran.items()):
        terminalreporter.write_line(f"  {count:5d} tests on {name}")
    terminalreporter.write_line(f"  {neither:5d} tests without services")
    for reason, count in sorted(absent.items()):
        terminalreporter.write_line(f"  {count:5d} tests skipped, {reason}")


def _services_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("shared_services") if callspec else None
