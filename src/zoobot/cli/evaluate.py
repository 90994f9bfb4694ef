"""``zoobot evaluate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["evaluate"]


def evaluate(
    predictions: Annotated[Path, typer.Option(help="Table that `zoobot predict` wrote.")],
    catalog: Annotated[Path, typer.Option(help="Table with id_str and votes.")],
    save_loc: Annotated[Path, typer.Option(help="JSON file to write.")],
    schema: Annotated[
        str | None,
        typer.Option(help="Decision tree: a name or a TOML file.", show_default="known by the predictions' columns"),
    ] = None,
    fractions: Annotated[
        Path | None,
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
    typer.echo(f"{save_loc}: these and more, as JSON")


_MEASURES = {
    "loss": "loss",
    "mean abs.": "mean_absolute_error",
    "RMS": "rms_error",
    "accuracy": "accuracy",
    "sure": "confident_accuracy",
}


def _print_scores(scores: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, title=f"{scores['galaxies']} galaxies; the baseline predicts the catalog's mean votes")
    table.add_column("question", no_wrap=True)
    for heading in ("galaxies", *_MEASURES):
        table.add_column(heading, justify="right")
    for name, row in {**scores["questions"], "all questions": scores["all_questions"]}.items():
        table.add_row(name, str(row["galaxies"]), *(_number(row[measure]) for measure in _MEASURES.values()))
        baseline = (_number(row[f"baseline_{measure}"]) for measure in _MEASURES.values())
        table.add_row("  baseline", "", *baseline, style="bright_black")
    console = Console()
    console.print(table)
    console.print("Loss and errors of fractions: lower is better. Accuracy of the leading answer, of")
    console.print("all galaxies and of those volunteers are sure of (> 0.8): higher is better.")
    if scores["all_questions"]["loss"] is None:
        console.print("no loss: the predictions hold no concentrations (predict with --concentrations)")
    if scores["without_votes"]:
        console.print(f"{scores['without_votes']} predicted galaxies are not in the catalog and were not scored")
    if scores["without_predictions"]:
        console.print(f"{scores['without_predictions']} galaxies of the catalog were not predicted")
    if "cumulative" in scores:
        found = scores["cumulative"]
        console.print(
            f"RMS error of cumulative fractions: {found['rms_error']:.4f}, of the mean votes "
            f"{found['baseline_rms_error']:.4f}, over {found['galaxies']} galaxies"
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
