"""The ``zoobot`` command."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from zoobot import __version__
from zoobot.cli.calibrate import calibrate
from zoobot.cli.cutouts import cutouts
from zoobot.cli.demo import demo
from zoobot.cli.evaluate import evaluate
from zoobot.cli.export import export
from zoobot.cli.finetune import cross_validate, finetune
from zoobot.cli.info import info
from zoobot.cli.merge import merge
from zoobot.cli.odd import odd
from zoobot.cli.predict import predict
from zoobot.cli.report import report
from zoobot.cli.represent import represent
from zoobot.cli.schemas import show_schemas
from zoobot.cli.shards import check_shards, create_shards, merge_shards
from zoobot.cli.similar import similar
from zoobot.cli.simulate import simulate
from zoobot.cli.stretch import stretch
from zoobot.cli.train import train
from zoobot.errors import ZoobotError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Galaxy morphology from volunteers' votes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("schemas")(show_schemas)
app.command("simulate")(simulate)
app.command("cutouts")(cutouts)
app.command("stretch")(stretch)
app.command("create-shards")(create_shards)
app.command("merge-shards")(merge_shards)
app.command("check-shards")(check_shards)
app.command("train")(train)
app.command("finetune")(finetune)
app.command("cross-validate")(cross_validate)
app.command("predict")(predict)
app.command("merge")(merge)
app.command("calibrate")(calibrate)
app.command("evaluate")(evaluate)
app.command("report")(report)
app.command("represent")(represent)
app.command("similar")(similar)
app.command("odd")(odd)
app.command("info")(info)
app.command("export")(export)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zoobot {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line: bad input is told in a line or two and exits with 2, Ctrl-C with 130."""
    try:
        app()
    except ZoobotError as error:
        _print_error(str(error))
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _print_error(f"{where}{error.strerror or error}")
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped")
        sys.exit(130)


def _print_error(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/] {escape(message)}", highlight=False)
