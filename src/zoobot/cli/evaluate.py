"""``zoobot evaluate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

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
    roc_loc: Annotated[
        Path | None, typer.Option(help="Also write the ROC curve of each answer as a table, .csv say.")
    ] = None,
    min_volunteers: Annotated[
        float, typer.Option(help="Classification counts galaxies that so many volunteers saw.", min=0)
    ] = 34,
    min_share_asked: Annotated[
        float, typer.Option(help="For a question, and of which at least this share was asked it.", min=0, max=1)
    ] = 0.5,
    resamples: Annotated[int, typer.Option(help="Bootstrap samples for the error bars; 0 for none.", min=0)] = 200,
    credibility: Annotated[float, typer.Option(help="Probability within the error bars.")] = 0.9,
    draws: Annotated[int, typer.Option(help="Of true fractions, for the noise floor; 0 for none.", min=0)] = 10,
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
        roc_loc=roc_loc,
        config=ScoreConfig(
            resamples=resamples,
            credibility=credibility,
            min_volunteers=min_volunteers,
            min_share_asked=min_share_asked,
            draws=draws,
            seed=seed,
        ),
    )
    _print_scores(scores)
    _print_classification(scores)
    typer.echo(f"{save_loc}: these and more, with error bars, as JSON")
    for path, what in ((table_loc, "the same as a table"), (latex_loc, "as LaTeX"), (roc_loc, "ROC curves")):
        if path is not None:
            typer.echo(f"{path}: {what}")


_MEASURES = {
    "loss": ("loss", "all"),
    "CRPS": ("crps", "all"),
    "RMS": ("rms_error", "all"),
    "right": ("accuracy", "all"),
    "agreed": ("accuracy", "agreed"),
    "in 90%": ("coverage_90", "all"),
    "ECE": ("calibration_error", "all"),
}
_SOURCES = {"baseline": "baseline", "perfect": "floor"}
_CLASSES = ("accuracy", "precision_weighted", "recall_weighted", "f1_weighted")


def _print_scores(scores: Mapping[str, Any]) -> None:
    from rich.console import Console

    found = _find_rows(scores)
    table = _start_table(f"{scores['galaxies']} galaxies", ("galaxies", *_MEASURES))
    for name in (*scores["questions"], "all_questions"):
        rows = [found[name, measure, subset] for measure, subset in _MEASURES.values()]
        table.add_row(name.replace("_", " "), str(rows[0]["galaxies"]), *(_number(row["value"]) for row in rows))
        _add_errors(table, None, *rows)
        for label, source in _SOURCES.items():
            table.add_row(f"  {label}", "", *(_number(row[source]) for row in rows), style="bright_black")
    console = Console()
    console.print(table)
    console.print("Loss, CRPS, RMS error of fractions, calibration error (ECE) of leading answers:")
    console.print("lower is better. Right leading answers, also where more than 80% of volunteers")
    console.print("agreed: higher is better. Votes in 90% intervals: 0.900 if these are right.")
    if scores["settings"]["resamples"]:
        console.print(f"±: half of the bootstrap interval of {scores['settings']['credibility']:.0%}.")
    console.print("Baseline: the catalog's mean votes. Perfect: an estimate for one who knows the")
    console.print("true fractions, but not which volunteers come.")
    if scores["all_questions"]["loss"] is None:
        console.print("no loss: the predictions hold no concentrations (predict with --concentrations)")
    if scores["without_votes"]:
        console.print(f"{scores['without_votes']} predicted galaxies are not in the catalog and were not scored")
    if scores["without_predictions"]:
        console.print(f"{scores['without_predictions']} galaxies of the catalog were not predicted")
    if row := found.get(("all_questions", "cumulative_rms_error", "all")):
        error = "" if row["lower"] is None else f" ± {(row['upper'] - row['lower']) / 2:.4f}"
        perfect = "" if row["floor"] is None else f", of a perfect model {row['floor']:.4f}"
        console.print(f"RMS error of cumulative fractions, over {row['galaxies']} galaxies: {row['value']:.4f}{error}")
        console.print(f"  of the mean votes {row['baseline']:.4f}{perfect}")


def _print_classification(scores: Mapping[str, Any]) -> None:
    """Print the table of leading answers in the form of the Galaxy Zoo papers."""
    from rich.console import Console

    settings, found = scores["settings"], _find_rows(scores)
    console = Console()
    rule = f"at least {settings['min_volunteers']:g} volunteers, {settings['min_share_asked']:.0%} of them asked"
    if not any(row["galaxies"] for (_, _, subset), row in found.items() if subset == "relevant"):
        console.print(f"No classification table: no galaxy has {rule} (see --min-volunteers)")
        return
    headings = ("count", "accuracy", "precision", "recall", "F1", "agreed", "accuracy")
    table = _start_table(f"Leading answers: galaxies with {rule}", headings)
    for name in scores["questions"]:
        rows = [found[name, measure, "relevant"] for measure in _CLASSES]
        agreed = found[name, "accuracy", "relevant_agreed"]
        numbers = (_number(row["value"]) for row in rows)
        table.add_row(name, str(rows[0]["galaxies"]), *numbers, str(agreed["galaxies"]), _number(agreed["value"]))
        _add_errors(table, None, *rows, None, agreed)
    console.print()
    console.print(table)


def _start_table(title: str, headings: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, title=title, padding=(0, 1, 0, 0))
    table.add_column("question", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _add_errors(table: "Table", *rows: Mapping[str, Any] | None) -> None:
    """Add a line with half the width of each row's error bar, if there are any."""
    errors = [None if row is None or row["lower"] is None else (row["upper"] - row["lower"]) / 2 for row in rows]
    if any(error is not None for error in errors):
        table.add_row("  ±", *("" if error is None else f"{error:.3f}" for error in errors))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _find_rows(scores: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {(row["question"], row["measure"], row["subset"]): row for row in scores["measures"] if not row["answer"]}
