"""The functions of librdkafka that read records in bulk, in the copy of the library that confluent_kafka brings.

A Python object per record costs more than all the rest of reading one. The library itself hands out an array of pointers; these are
its public C functions (https://github.com/confluentinc/librdkafka, `rdkafka.h`), found through confluent_kafka's own module, so
that no second copy is needed. Where they cannot be found there is `UnavailableError`, and records come as objects
(`headrace_schemas.stores.records`). What may not live here: what records mean.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_ssize_t, c_void_p
from functools import cache
from typing import Any

from confluent_kafka import KafkaError, KafkaException, cimpl

_CONSUMER = 1  # RD_KAFKA_CONSUMER
_TEXT_BYTES = 512
_OLDEST = 0x01060000  # leader epochs came later; messages without them cannot be told from another leader's

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_version": (c_int, []),
    "rd_kafka_conf_new": (c_void_p, []),
    "rd_kafka_conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "rd_kafka_conf_destroy": (None, [c_void_p]),
    "rd_kafka_new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "rd_kafka_destroy": (None, [c_void_p]),
    "rd_kafka_poll_set_consumer": (c_int, [c_void_p]),
    "rd_kafka_queue_get_consumer": (c_void_p, [c_void_p]),
    "rd_kafka_queue_destroy": (None, [c_void_p]),
    "rd_kafka_consumer_close": (c_int, [c_void_p]),
    "rd_kafka_topic_partition_list_new": (c_void_p, [c_int]),
    "rd_kafka_topic_partition_list_add": (c_void_p, [c_void_p, c_char_p, c_int32]),
    "rd_kafka_topic_partition_list_set_offset": (c_int, [c_void_p, c_char_p, c_int32, c_int64]),
    "rd_kafka_topic_partition_list_destroy": (None, [c_void_p]),
    "rd_kafka_assign": (c_int, [c_void_p, c_void_p]),
    "rd_kafka_consume_batch_queue": (c_ssize_t, [c_void_p, c_int, c_void_p, c_size_t]),
    "rd_kafka_query_watermark_offsets": (
        c_int,
        [c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64), c_int],
    ),
    "rd_kafka_get_watermark_offsets": (c_int, [c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64)]),
    "rd_kafka_message_timestamp": (c_int64, [c_void_p, POINTER(c_int)]),
    "rd_kafka_message_leader_epoch": (c_int32, [c_void_p]),
    "rd_kafka_message_destroy": (None, [c_void_p]),
    "rd_kafka_message_errstr": (c_char_p, [c_void_p]),
    "rd_kafka_topic_name": (c_char_p, [c_void_p]),
    "rd_kafka_err2str": (c_char_p, [c_int]),
}


class UnavailableError(Exception):
    """The library's functions cannot be reached from here."""


@cache
def functions() -> Any:
    """The library, its functions declared.

    Raises:
        UnavailableError: they are not where they should be.
    """
    try:
        # A symbol is looked up in the module and in the libraries that it was linked to.
        found = ctypes.CDLL(cimpl.__file__)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError, TypeError) as error:
        raise UnavailableError(str(error)) from error
    if found.rd_kafka_version() < _OLDEST:
        raise UnavailableError(f"version {found.rd_kafka_version():08x} is too old")
    return found


def address_of(function: Any) -> int:
    """Where a function lies, for compiled code to call it."""
    return ctypes.cast(function, c_void_p).value or 0


class Handle:
    """A consumer of the library, without a group.

    Args:
        settings: the library's own.

    Raises:
        KafkaException: a setting is refused.
        UnavailableError: there is no library.
    """

    def __init__(self, settings: dict[str, object]) -> None:
        self.library = functions()
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        conf = self.library.rd_kafka_conf_new()
        for name, value in settings.items():
            said = str(value).lower() if isinstance(value, bool) else str(value)
            if self.library.rd_kafka_conf_set(conf, name.encode(), said.encode(), text, _TEXT_BYTES) != 0:
                self.library.rd_kafka_conf_destroy(conf)
                raise KafkaException(KafkaError(KafkaError._INVALID_ARG, text.value.decode(errors="replace")))
        self._rk = self.library.rd_kafka_new(_CONSUMER, conf, text, _TEXT_BYTES)
        if not self._rk:
            self.library.rd_kafka_conf_destroy(conf)
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, text.value.decode(errors="replace")))
        self.library.rd_kafka_poll_set_consumer(self._rk)
        self._queue = self.library.rd_kafka_queue_get_consumer(self._rk)

    def assign(self, places: list[tuple[str, int, int]]) -> None:
        """Read these partitions from these offsets on: (topic, partition, offset)."""
        chosen = self.library.rd_kafka_topic_partition_list_new(len(places))
        try:
            for topic, partition, offset in places:
                self.library.rd_kafka_topic_partition_list_add(chosen, topic.encode(), partition)
                self.library.rd_kafka_topic_partition_list_set_offset(chosen, topic.encode(), partition, offset)
            self._check(self.library.rd_kafka_assign(self._rk, chosen))
        finally:
            self.library.rd_kafka_topic_partition_list_destroy(chosen)

    def consume(self, target: int, most: int) -> int:
        """Write the addresses of the messages that are there to an array; how many. They have to be given back.

        Args:
            target: the array's address.
            most: its length.
        """
        count: int = self.library.rd_kafka_consume_batch_queue(self._queue, 0, target, most)
        return max(count, 0)

    def watermarks(self, topic: str, partition: int, timeout_s: float | None) -> tuple[int, int]:
        """The first offset of a partition and the one behind its last.

        Args:
            topic: of the partition.
            partition: its number.
            timeout_s: how long the broker may take; None: what it has told last.

        Raises:
            KafkaException: it does not answer, or has told nothing.
        """
        low, high = c_int64(), c_int64()
        arguments = [self._rk, topic.encode(), partition, ctypes.byref(low), ctypes.byref(high)]
        if timeout_s is None:
            self._check(self.library.rd_kafka_get_watermark_offsets(*arguments))
        else:
            self._check(self.library.rd_kafka_query_watermark_offsets(*arguments, int(timeout_s * 1000)))
        return low.value, high.value

    def _check(self, code: int) -> None:
        if code != 0:
            raise KafkaException(KafkaError(code, (self.library.rd_kafka_err2str(code) or b"").decode()))

    def close(self) -> None:
        """Leave the broker and free everything; the handle may not be used any more."""
        self.library.rd_kafka_queue_destroy(self._queue)
        self.library.rd_kafka_consumer_close(self._rk)
        self.library.rd_kafka_destroy(self._rk)
