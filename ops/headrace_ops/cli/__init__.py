"""The command line `headrace`: one module per command, loaded when the command is used.

Invariants: `headrace --help` imports no engine and no command; every command has an example in its help, speaks JSON with
``--json``, and ends with 0 (done), 1 (the answer is no), 2 (wrong use) or 3 (a service is missing). What may not live here:
what the commands do. They parse, call one function of a room, and print.
"""

from __future__ import annotations

import os

from headrace_ops.cli.group import CommandGroup

# Threads of OpenMP that have nothing to do wait by spinning, which on a busy machine makes fitting several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PROJECT_HELP = "Run `headrace COMMAND --help` for a command's options and an example."

main = CommandGroup(
    "headrace",
    help=(
        "Streaming features and inference from one declaration.\n\n"
        "A project is a directory with a headrace.toml, or an installed package; -p names it, and without it the working "
        "directory is meant."
    ),
    epilog=PROJECT_HELP,
    sections={
        "Start": {
            "demo": "A year of real flights, end to end, in minutes.",
            "init": "Make a new project from a template.",
            "doctor": "Say what is missing or misconfigured, and how to mend it.",
        },
        "Declare": {
            "check": "Load the definitions and validate them.",
            "plan": "Say what apply would do, and what the windows cost.",
            "apply": "Create topics and register feature views.",
        },
        "Run": {
            "dev": "The embedded stack, all pipelines and the service, until Ctrl-C.",
            "stream": "Run the feature pipeline and the log writer.",
            "serve": "Run the inference service.",
            "produce": "Send events from a Parquet, CSV or NDJSON file to a topic.",
        },
        "Train": {
            "dataset": "Build a point-in-time correct dataset.",
            "train": "Fit, evaluate and register a model.",
            "models": "List the registered models.",
            "promote": "Point an alias of a model to another version.",
        },
        "Ask": {
            "predict": "Ask the service for a prediction.",
            "features": "Show the features of an entity as of now.",
        },
        "Watch": {
            "status": "Say what is running, how far it is, and what lags.",
            "audit": "Recompute logged predictions and compare them bit for bit.",
            "dead-letters": "List the events that broke their contract.",
            "forget": "Delete an entity: its states, its events, its predictions.",
        },
    },
)
