"""``python -m headrace_streams``: the feature pipeline or the log writer of a project, as a process.

Exit codes are those of `headrace_streams.errors`. SIGTERM and SIGINT stop cleanly: what was read is committed, the lanes are
given back. What may not live here: anything that `headrace stream` needs beyond it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from collections.abc import Sequence

from headrace.errors import HeadraceError
from headrace_schemas.loading import LoadedProject, load_project
from headrace_streams.errors import exit_code
from headrace_streams.journal import Journal
from headrace_streams.leaving import leave
from headrace_streams.lifeline import hold
from headrace_streams.poison import MAYBE, SURE
from headrace_streams.pulse import Pulse
from headrace_streams.stopping import stopped_by_signals

_GIVES_WAY = 10  # nobody reads the log within milliseconds: where processors are short, features come first


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a role until it is stopped; returns the exit code."""
    options = _parse(arguments)
    os.environ.setdefault("RUST_BACKTRACE", "0")
    journal = Journal(options.role)
    with stopped_by_signals() as stop:
        if options.child:
            hold(stop.set)
        try:
            return _run(load_project(options.project), options, stop, journal)
        except HeadraceError as error:
            details = {"detail": error.__notes__} if getattr(error, "__notes__", None) else {}
            journal.note("failed", error=type(error).__name__, message=str(error), **details)
            return exit_code(error)


def _run(loaded: LoadedProject, options: argparse.Namespace, stop: threading.Event, journal: Journal) -> int:
    if options.supervise:
        from headrace_streams.supervisor import supervise

        return supervise(loaded, options.role, stop=stop, take_over=options.take_over)
    pulse = Pulse(options.pulse)
    if options.role == "log":
        from headrace_streams.log_writer import run_log_writer

        with contextlib.suppress(AttributeError, OSError):
            os.nice(_GIVES_WAY)
        return run_log_writer(loaded, stop=stop, journal=journal, pulse=pulse, careful=options.careful)
    from headrace_schemas.stores.lanes import fresh_token
    from headrace_streams.claims import Claimant
    from headrace_streams.run import run_stream

    addresses = options.addresses.split(",") if options.addresses else []
    dead = tuple(map(bytes.fromhex, filter(None, options.dead.split(","))))
    claimant = Claimant(fresh_token(bytes.fromhex(options.group)), dead, options.take_over)
    return run_stream(
        loaded, claimant=claimant, worker=options.worker, addresses=addresses, stop=stop, journal=journal, pulse=pulse,
        careful=options.careful, stand_in=options.stand_in,
    )  # fmt: skip


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m headrace_streams", description="The feature pipeline of a project."
    )
    parser.add_argument("--project", default=None, help="a project's directory or package; default: this directory")
    parser.add_argument("--role", choices=("stream", "log"), default="stream", help="the feature pipeline, or its log")
    parser.add_argument("--supervise", action="store_true", help="run it in child processes and start it again")
    parser.add_argument("--take-over", action="store_true", help="claim lanes from whoever owns them")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--addresses", default="", help=argparse.SUPPRESS)
    parser.add_argument("--group", default="", help=argparse.SUPPRESS)
    parser.add_argument("--dead", default="", help=argparse.SUPPRESS)
    parser.add_argument("--careful", choices=("", MAYBE, SURE), default="", help=argparse.SUPPRESS)
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pulse", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    leave(main)
