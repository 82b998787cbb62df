"""``python -m headrace_ops``: the command line, for where the script `headrace` is not on the path."""

from __future__ import annotations

from headrace_ops.cli import main

if __name__ == "__main__":
    main(prog_name="headrace")
