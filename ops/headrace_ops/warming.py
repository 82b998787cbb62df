"""``python -m headrace_ops.warming PART``: compile a part of the machine code, so that every later process loads it.

Parts: ``folding`` and ``reading`` of the kernel, and the feature pipeline's ``cache``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1] == "cache":
        from headrace_streams import cache

        cache.warm()
    else:
        from headrace import kernel

        kernel.warm(folding_only=sys.argv[1] == "folding")
