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
    table_loc: Annotated[
        Path | None,
        typer.Option(help="Also write every measure, error bar, baseline and noise floor as a table, .csv say."),
    ] = None,
    latex_loc: Annotated[Path | None, typer.Option(help="Also write the tables that papers print, as LaTeX.")] = None,
    min_volunteers: Annotated[
        float, typer.Option(help="Classification counts galaxies that so many volunteers saw.", min=0)
    ] = 34,
    resamples: Annotated[int, typer.Option(help="Bootstrap samples for the error bars; 0 for none.", min=0)] = 200,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of the noise floor.", min=0)] = 0,
) -> None:
    """Score predictions against volunteers' votes, beside a baseline that predicts the mean votes.

    Examples:

        zoobot evaluate --predictions predictions.parquet --catalog catalog.csv --save-loc metrics.json

        zoobot evaluate --predictions p.parquet --catalog c.csv --save-loc m.json --table-loc m.csv --latex-loc m.tex
    """
    from zoobot import schemas
    from zoobot.predictions import evaluate as evaluating
    from zoobot.stats.score_table import ScoreConfig

    scores = evaluating.evaluate(
        predictions,
        catalog,
        save_loc,
        schema=None if schema is None else schemas.load(schema),
        fractions=fractions,
        table_loc=table_loc,
        latex_loc=latex_loc,
        config=ScoreConfig(min_volunteers=min_volunteers, resamples=resamples, seed=seed),
    )
    _print_scores(scores)
    _print_classification(scores)
    typer.echo(f"{save_loc}: these and more, with error bars, as JSON")
    for path in (table_loc, latex_loc):
        if path is not None:
            typer.echo(f"{path}: the same as a table")


_MEASURES = {
    "loss": "loss",
    "CRPS": "crps",
    "abs.": "mean_absolute_error",
    "RMS": "rms_error",
    "right": "accuracy",
    "sure": "confident_accuracy",
}
_SOURCES = {"baseline": "baseline", "perfect": "floor"}
_COLUMNS = ("accuracy", "precision_weighted", "recall_weighted", "f1_weighted")


def _print_scores(scores: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, title=f"{scores['galaxies']} galaxies")
    table.add_column("question", no_wrap=True)
    for heading in ("galaxies", *_MEASURES):
        table.add_column(heading, justify="right")
    found = _find_rows(scores, "all")
    for name in (*scores["questions"], "all_questions"):
        rows = [found[name, measure] for measure in _MEASURES.values()]
        table.add_row(name.replace("_", " "), str(rows[0]["galaxies"]), *(_number(row["value"]) for row in rows))
        for label, source in _SOURCES.items():
            table.add_row(f"  {label}", "", *(_number(row[source]) for row in rows), style="bright_black")
    console = Console()
    console.print(table)
    console.print("Loss, CRPS, mean absolute and RMS errors of fractions: lower is better.")
    console.print("Right leading answers, also where volunteers are sure (> 0.8): higher is better.")
    console.print("Baseline: the catalog's mean votes. Perfect: an estimate for one who knows the")
    console.print("true fractions, but not which volunteers come.")
    if scores["all_questions"]["loss"] is None:
        console.print("no loss: the predictions hold no concentrations (predict with --concentrations)")
    if scores["without_votes"]:
        console.print(f"{scores['without_votes']} predicted galaxies are not in the catalog and were not scored")
    if scores["without_predictions"]:
        console.print(f"{scores['without_predictions']} galaxies of the catalog were not predicted")
    if "cumulative" in scores:
        cumulative = scores["cumulative"]
        console.print(
            f"RMS error of cumulative fractions: {cumulative['rms_error']:.4f}, of the mean votes "
            f"{cumulative['baseline_rms_error']:.4f}, over {cumulative['galaxies']} galaxies"
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _print_classification(scores: Mapping[str, Any]) -> None:
    """Print the table of leading answers in the form of the Galaxy Zoo papers."""
    from rich.console import Console
    from rich.table import Table

    settings = scores["settings"]
    relevant, confident = _find_rows(scores, "relevant"), _find_rows(scores, "confident")
    console = Console()
    rule = f"at least {settings['min_volunteers']:g} volunteers, {settings['min_share_asked']:.0%} of them asked"
    if not any(row["galaxies"] for row in relevant.values()):
        console.print(f"No classification table: no galaxy has {rule} (see --min-volunteers)")
        return
    table = Table(box=None, title=f"Leading answers: galaxies with {rule}")
    table.add_column("question", no_wrap=True)
    for heading in ("count", "accuracy", "precision", "recall", "F1", "sure", "accuracy"):
        table.add_column(heading, justify="right")
    for name in scores["questions"]:
        rows = [relevant[name, measure] for measure in _COLUMNS]
        sure = confident[name, "accuracy"]
        numbers = (_number(row["value"]) for row in rows)
        table.add_row(name, str(rows[0]["galaxies"]), *numbers, str(sure["galaxies"]), _number(sure["value"]))
    console.print()
    console.print(table)


def _find_rows(scores: Mapping[str, Any], subset: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["question"], row["measure"]): row for row in scores["measures"] if row["subset"] == subset}
