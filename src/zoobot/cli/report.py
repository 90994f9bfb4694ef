"""``zoobot report``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    predictions: Annotated[Path, typer.Option(help="Table that `zoobot predict` wrote.")],
    catalog: Annotated[Path, typer.Option(help="Table with id_str and votes, and file_loc of the images.")],
    save_loc: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("report.html"),
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Model folder, for its facts and its learning curve.")
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            help="Decision tree: a name or a TOML file.", show_default="the model's, or by the predictions' columns"
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Of a simulated survey: table of id_str and <answer>_probability.")
    ] = None,
    galaxies: Annotated[int, typer.Option(help="How many to show of each kind.")] = 6,
) -> None:
    """Show predictions beside volunteers' votes on one HTML page.

    Galaxies with their posteriors, scores beside a baseline, confusion matrices, reliability: all in one file.

    Examples:

        zoobot report --predictions predictions.parquet --catalog catalog.csv --checkpoint-dir model
    """
    from zoobot import schemas
    from zoobot.report.page import make_report

    page = make_report(
        predictions,
        catalog,
        save_loc,
        checkpoint_dir=checkpoint_dir,
        schema=None if schema is None else schemas.load(schema),
        truth=truth,
        galaxies=galaxies,
    )
    typer.echo(f"{page}: open it in a browser")
