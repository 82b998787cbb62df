"""The feature pipeline on a topic that has forgotten all its records, so that it reads them from the log.

`ops.benchmarks.exactly_once` measures a rebuild with it; the embedded broker cannot forget. Takes the arguments of
``python -m headrace_streams``.
"""

from __future__ import annotations

import sys

from headrace_streams import preparing
from headrace_streams.__main__ import main

if __name__ == "__main__":
    preparing.first_offsets = preparing.end_offsets
    sys.exit(main())
