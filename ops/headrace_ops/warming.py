"""``python -m headrace_ops.warming``: compile the kernel once, so that every later process loads it."""

from __future__ import annotations

if __name__ == "__main__":
    from headrace import kernel

    kernel.warm()
