"""The feature pipeline with the protocol taken out of its writes: plain MSETs of the same states, nobody asked, nothing checked.

Not a way to run anything: it loses and doubles events as soon as a process dies. `ops.benchmarks.exactly_once` measures what the
protocol costs against it. Takes the arguments of ``python -m headrace_streams``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from headrace_streams import flushes
from headrace_streams.__main__ import main
from headrace_streams.commits import Ledger


def _mset(_lane: Any, _commit: Any, _told: Sequence[bytes], states: int) -> bytes:
    return b"*%d\r\n$4\r\nMSET\r\n" % (1 + 2 * states) if states else b"*1\r\n$4\r\nPING\r\n"


def _applied(ledger: Ledger, index: int, _reply: object) -> None:
    ledger._apply(ledger.commits[index], None)


def _any_head(_flushes: flushes.FlushBuilder, _view: int, _lane: int, _head: bytes) -> bool:
    return True


if __name__ == "__main__":
    flushes._call = _mset
    Ledger.answer = _applied  # type: ignore[method-assign]
    flushes.FlushBuilder.knows = _any_head  # type: ignore[method-assign]
    sys.exit(main())
