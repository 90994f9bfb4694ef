"""``zoobot merge``."""

from pathlib import Path
from typing import Annotated

import typer

from zoobot.cli.predict import print_predicted

__all__ = ["merge"]


def merge(
    predictions: Annotated[Path, typer.Option(help="Folder of parts that `zoobot predict` made.")],
    save_loc: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .fits.")],
    friendly_loc: Annotated[
        Path | None,
        typer.Option(help="Second table, of leading answers, blank where a question is unlikely to be asked."),
    ] = None,
    asked_threshold: Annotated[float, typer.Option(help="Least share of volunteers asked, for --friendly-loc.")] = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --save-loc.")] = False,
) -> None:
    """Join predictions in parts into one table, once all parts are there.

    Images that could not be read are listed in a second table, NAME.failed.csv. The parts are kept.

    Examples:

        zoobot merge --predictions predictions --save-loc predictions.parquet
    """
    from zoobot.predictions import merging

    print_predicted(
        merging.merge(
            predictions,
            save_loc,
            friendly_loc=friendly_loc,
            asked_threshold=asked_threshold,
            overwrite=overwrite,
        )
    )
