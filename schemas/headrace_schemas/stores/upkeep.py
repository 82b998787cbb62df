"""Upkeep of a log table beside its writer: small files are merged in the background when there are many.

A commit makes a file per partition, and a commit takes longer the more files are live (8 ms at 50, 100 ms at 2,500), so a writer
that runs for days needs this. Merging never waits for the writer nor the writer for it: Delta lets appends and compactions commit
in any order. A failure is told once and stops nothing; the table only stays slower. What may not live here: when to commit.
"""

from __future__ import annotations

import threading

from headrace.errors import StoreError
from headrace_schemas.stores.log import Compacted, LogTable

MOST_FILES = 512


class Upkeep:
    """Compacts one table when it has too many files.

    Args:
        table: the writer's table; the background thread opens its own.
        most_files: more than this are too many.
    """

    def __init__(self, table: LogTable, most_files: int = MOST_FILES) -> None:
        self._table, self._most_files = table, most_files
        self._limit = most_files
        self._thread: threading.Thread | None = None
        self._result: Compacted | StoreError | None = None

    def step(self) -> Compacted | StoreError | None:
        """Start a compaction if there are too many files and none is running; costs about a millisecond.

        Returns:
            What the last compaction did, or why it failed, once; None while there is nothing to tell.
        """
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread.join()
            self._thread = None
        told, self._result = self._result, None
        files = self._table.files()
        if told is not None:
            # Where merging does not help (large files, a failure) it is not tried again at every commit.
            self._limit = max(self._most_files, 2 * files)
        if files > self._limit:
            self._thread = threading.Thread(target=self._compact, name="headrace-log-upkeep", daemon=True)
            self._thread.start()
        return told

    def close(self) -> None:
        """Wait for a compaction that is running."""
        if self._thread is not None:
            self._thread.join()

    def _compact(self) -> None:
        try:
            self._result = LogTable.open(self._table.path, self._table.schema).compact()
        except StoreError as error:
            self._result = error
