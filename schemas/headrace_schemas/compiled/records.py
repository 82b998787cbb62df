"""Messages of librdkafka to columns: their heads in one pass, their keys and values one behind the other.

What lies where in a message is the library's public structure, `rd_kafka_message_t`; what is not in it (timestamp, leader epoch)
is asked of the library's own functions, whose addresses are passed in. What may not live here: where messages come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from headrace.kernel.memory import bytes_at, generated, load, move, pointer
from headrace_schemas.compiled.compiling import entry, inner

# The rows of the heads.
ERROR, TOPIC, PARTITION, OFFSET, TIME_MS, TIME_KIND, EPOCH, LENGTH, KEY_LENGTH = 0, 1, 2, 3, 4, 5, 6, 7, 8
HEADS = 9
ABSENT = -1  # the length of what is not there

# Places in a message.
_ERROR, _TOPIC, _PARTITION, PAYLOAD, _LENGTH, KEY, _KEY_LENGTH, _OFFSET = 0, 8, 16, 24, 32, 40, 48, 56

_I32, _I64, _NOTHING = ir.IntType(32), ir.IntType(64), ir.VoidType()
_ADDRESS = ir.IntType(8).as_pointer()
_Generated = tuple[Any, Callable[..., Any]]


def _function(builder: Any, address: Any, result: Any, *arguments: Any) -> Any:
    return builder.inttoptr(address, ir.FunctionType(result, arguments).as_pointer())


@generated(tuple[int, int])
def _call_timestamp(typing: Any, function: Any, message: Any) -> _Generated:
    """`rd_kafka_message_timestamp`: milliseconds and their kind."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = cgutils.alloca_once(builder, _I32)
        call = _function(builder, args[0], _I64, _ADDRESS, _I32.as_pointer())
        time_ms = builder.call(call, [builder.inttoptr(args[1], _ADDRESS), kind])
        return context.make_tuple(
            builder, types.UniTuple(types.int64, 2), [time_ms, builder.sext(builder.load(kind), _I64)]
        )

    return types.UniTuple(types.int64, 2)(types.int64, types.int64), generate


@generated(int)
def _call_epoch(typing: Any, function: Any, message: Any) -> _Generated:
    """`rd_kafka_message_leader_epoch`: -1 where the broker told none."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call = _function(builder, args[0], _I32, _ADDRESS)
        return builder.sext(builder.call(call, [builder.inttoptr(args[1], _ADDRESS)]), _I64)

    return types.int64(types.int64, types.int64), generate


@generated(int)
def _call_destroy(typing: Any, function: Any, message: Any) -> _Generated:
    """`rd_kafka_message_destroy`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call = _function(builder, args[0], _NOTHING, _ADDRESS)
        builder.call(call, [builder.inttoptr(args[1], _ADDRESS)])
        return ir.Constant(_I64, 0)

    return types.int64(types.int64, types.int64), generate


@inner
def _signed(word: int) -> int:
    """The low 32 bits as a signed number."""
    return (word << 32) >> 32


@entry
def read_heads(
    messages: npt.NDArray[np.int64], timestamp_function: int, epoch_function: int, heads: npt.NDArray[np.int64]
) -> None:
    """What is known of each message but its bytes.

    Args:
        messages: addresses.
        timestamp_function: address of `rd_kafka_message_timestamp`.
        epoch_function: address of `rd_kafka_message_leader_epoch`.
        heads: [HEADS, messages]: receives them.
    """
    for i in range(len(messages)):
        place = bytes_at(messages[i])
        heads[ERROR, i], heads[TOPIC, i] = _signed(load(place, _ERROR)), load(place, _TOPIC)
        heads[PARTITION, i], heads[OFFSET, i] = _signed(load(place, _PARTITION)), load(place, _OFFSET)
        heads[TIME_MS, i], heads[TIME_KIND, i] = _call_timestamp(timestamp_function, messages[i])
        heads[EPOCH, i] = _call_epoch(epoch_function, messages[i])
        heads[LENGTH, i] = ABSENT if load(place, PAYLOAD) == 0 else load(place, _LENGTH)
        heads[KEY_LENGTH, i] = ABSENT if load(place, KEY) == 0 else load(place, _KEY_LENGTH)


@entry
def gather(
    messages: npt.NDArray[np.int64], part: int, lengths: npt.NDArray[np.int64], slack: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The values or keys of messages one behind the other, and where each begins and the last ends.

    Args:
        messages: addresses.
        part: PAYLOAD or KEY.
        lengths: of each; what is absent has none.
        slack: bytes behind the last one.
    """
    offsets = np.empty(len(messages) + 1, np.int64)
    offsets[0] = 0
    for i in range(len(messages)):
        offsets[i + 1] = offsets[i] + max(lengths[i], 0)
    data = np.empty(offsets[len(messages)] + slack, np.uint8)
    target = pointer(data)
    for i in range(len(messages)):
        if lengths[i] > 0:
            move(target, offsets[i], bytes_at(load(bytes_at(messages[i]), part)), 0, lengths[i])
    return data, offsets


@entry
def destroy(messages: npt.NDArray[np.int64], function: int) -> None:
    """Give messages back to the library.

    Args:
        messages: addresses.
        function: address of `rd_kafka_message_destroy`.
    """
    for i in range(len(messages)):
        _call_destroy(function, messages[i])
