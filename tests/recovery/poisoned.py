"""The pipelines with a mistake in them: some records end the process that handles them. Takes the arguments of `headrace_streams`.

POISONED says where and how: ``decode`` or ``fold``, ``signal`` or ``raise``. A record is poison if its amount is 666.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

from headrace import kernel
from headrace_schemas.batches import Decoded, RawBatch
from headrace_schemas.codecs import EventCodec
from headrace_streams import supervisor
from headrace_streams.__main__ import main
from headrace_streams.leaving import leave

AMOUNT = 666.0
MARK = np.float64(AMOUNT).tobytes()


def end() -> None:
    if os.environ["POISONED"].endswith(" signal"):
        os.kill(os.getpid(), signal.SIGSEGV)
    raise ValueError("it is poison")


def break_decoding() -> None:
    decode = EventCodec.decode

    def decode_or_end(codec: EventCodec, raw: RawBatch) -> Decoded:
        if any(MARK in (value or b"") for value in raw.values):
            end()
        return decode(codec, raw)

    EventCodec.decode = decode_or_end  # type: ignore[method-assign]


def break_folding() -> None:
    update = kernel.update

    def update_or_end(layout: Any, states: Any, events: Any, slot: Any) -> Any:
        if AMOUNT in np.asarray(events.values):
            end()
        return update(layout, states, events, slot)

    kernel.update = update_or_end


def same_module(command: Any) -> Any:
    def with_mistake(*arguments: Any) -> list[str]:
        return [__spec__.name if part == "headrace_streams" else part for part in command(*arguments)]

    return with_mistake


if __name__ == "__main__":
    (break_decoding if os.environ["POISONED"].startswith("decode ") else break_folding)()
    supervisor.worker_command = same_module(supervisor.worker_command)
    leave(main)
