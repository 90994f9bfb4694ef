"""``zoobot evaluate``."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

__all__ = ["evaluate"]


def evaluate(
    predictions: Annotated[Path, typer.Option(help="Table that `zoobot predict` wrote.")],
    catalog: Annotated[Path, typer.Option(help="Table with id_str and votes.")],
    save_loc: Annotated[Path, typer.Option(help="JSON file to write.")],
    schema: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Decision tree: a name or a TOML file.", show_default="known by the predictions' columns"),
    ] = None,
    fractions: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Table of measured cumulative fractions: id_str and a column per answer, or Kaggle's."),
    ] = None,
) -> None:
    """Score predictions against volunteers' votes, beside a baseline that predicts the mean votes.

    Examples:

        zoobot evaluate --predictions predictions.parquet --catalog catalog.csv --save-loc metrics.json
    """
    from zoobot import schemas
    from zoobot.predictions import evaluate as evaluating

    scores = evaluating.evaluate(
        predictions,
        catalog,
        save_loc,
        schema=None if schema is None else schemas.load(schema),
        fractions=fractions,
    )
    _print_scores(scores)
    typer.echo(f"{save_loc}: all of it")
