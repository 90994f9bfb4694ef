"""Scores as files: a tidy table, and the LaTeX tables that papers print."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from zoobot.data import tables
from zoobot.files import replace_atomically
from zoobot.schemas import Schema
from zoobot.stats.classification import RocCurve
from zoobot.stats.score_table import ALL_QUESTIONS, ScoreConfig, ScoreRow

__all__ = ["make_latex", "write_latex", "write_roc_curves", "write_score_table"]

_CLASSIFICATION = {
    "Accuracy": "accuracy",
    "Precision": "precision_weighted",
    "Recall": "recall_weighted",
    "F1": "f1_weighted",
}
_FRACTIONS = {
    "Loss": "loss",
    "CRPS": "crps",
    "MAE": "mean_absolute_error",
    "RMS": "rms_error",
    r"In 90\%": "coverage_90",
    "ECE": "calibration_error",
}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def write_score_table(rows: Sequence[ScoreRow], table_loc: str | Path) -> None:
    """Write a row for each question, answer, measure and subset; the suffix says how; NaN where there is no number.

    Raises:
        SettingError: the suffix cannot be written.
    """
    frame = pd.DataFrame([asdict(row) for row in rows])
    numbers = ["value", "lower", "upper", "baseline", "floor"]
    tables.write_table(frame.astype(dict.fromkeys(numbers, "float64")), table_loc)


def write_roc_curves(curves: Mapping[str, RocCurve], schema: Schema, table_loc: str | Path) -> None:
    """Write a row for each point of each answer's curve; the first threshold of each is infinite.

    Raises:
        SettingError: the suffix cannot be written.
    """
    question_of = {answer.label_col: question.name for question in schema.questions for answer in question.answers}
    parts = [
        pd.DataFrame({"question": question_of[answer], "answer": answer, **asdict(curve)})
        for answer, curve in curves.items()
    ]
    table = pd.concat(parts or [pd.DataFrame(columns=["question", "answer", *RocCurve.__dataclass_fields__])])
    tables.write_table(table.rename(columns={"thresholds": "threshold"}), table_loc)


def write_latex(rows: Sequence[ScoreRow], latex_loc: str | Path, config: ScoreConfig) -> None:
    """Write `make_latex` to a file."""
    with replace_atomically(latex_loc) as path:
        path.write_text(make_latex(rows, config), encoding="utf-8")


def make_latex(rows: Sequence[ScoreRow], config: ScoreConfig) -> str:
    r"""Tables for a paper, to be included with ``\input``; they need the package booktabs.

    Classification of relevant galaxies, and of those where volunteers agree, as in Walmsley et al. 2022 (MNRAS 509,
    3966, table 1; precision, recall and F1 weighted by the true galaxies of each answer), and errors and calibration of
    vote fractions beside the baseline and the noise floor. Error bars are bootstrap intervals.

    >>> row = ScoreRow("bar", "", "accuracy", "relevant", 120, 0.9, 0.88, 0.93, 0.5, 0.95)
    >>> print([line for line in make_latex([row], ScoreConfig()).splitlines() if line.startswith("Bar")][0])
    Bar & 120 & $0.900_{-0.020}^{+0.030}$ & -- & -- & -- \\
    """
    found = {(row.question, row.measure, row.subset): row for row in rows if not row.answer}
    questions = list(dict.fromkeys(row.question for row in rows))
    bars = f"Error bars: {100 * config.credibility:g}\\% of {config.resamples} bootstrap samples of the galaxies."
    if not config.resamples:
        bars = "No error bars."
    relevant = (
        f"Leading answers for galaxies with at least {config.min_volunteers:g} volunteers, at least "
        f"{100 * config.min_share_asked:g}\\% of whom were asked the question. Precision, recall and F1 are weighted "
        f"by the number of true galaxies for each answer. {bars}"
    )
    agreed = f"As above, for galaxies where one answer has a vote fraction above 0.8. {bars}"
    parts = ["% made by zoobot evaluate; needs \\usepackage{booktabs}"]
    named = [name for name in questions if name != ALL_QUESTIONS]
    for subset, caption in (("relevant", relevant), ("relevant_agreed", agreed)):
        body = [_cells(found, name, list(_CLASSIFICATION.values()), subset) for name in named]
        parts += _table(caption, ["Question", "Count", *_CLASSIFICATION], body)
    caption = (
        "Predicted against measured vote fractions: the model, below it the mean votes as predictions and the estimate "
        "for a perfect model, which knows the true fractions but not the votes. In 90\\%: votes inside the predicted "
        f"90\\% intervals. ECE: expected calibration error of leading answers. {bars}"
    )
    body = []
    for name in questions:
        body.append(_cells(found, name, list(_FRACTIONS.values()), "all"))
        for label, source in (("mean votes", "baseline"), ("perfect", "floor")):
            each = (found.get((name, measure, "all")) for measure in _FRACTIONS.values())
            numbers = (None if row is None else getattr(row, source) for row in each)
            body.append([rf"\quad {label}", "", *map(_number, numbers)])
    parts += _table(caption, ["Question", "Count", *_FRACTIONS], body)
    return "\n".join(parts) + "\n"


def _cells(
    found: dict[tuple[str, str, str], ScoreRow], question: str, measures: Sequence[str], subset: str
) -> list[str]:
    """Question, number of galaxies, and each measure with its error bar."""
    rows = [found.get((question, measure, subset)) for measure in measures]
    galaxies = max((row.galaxies for row in rows if row is not None), default=0)
    title = _escape(question.replace("-", " ").replace("_", " ").title())
    return [title, str(galaxies), *("--" if row is None else _with_error(row) for row in rows)]


def _with_error(row: ScoreRow) -> str:
    if row.value is None or row.lower is None or row.upper is None:
        return _number(row.value)
    # percentiles of resamples may lie to one side of the value
    down, up = (max(0.0, distance) for distance in (row.value - row.lower, row.upper - row.value))
    return f"${row.value:.3f}_{{-{down:.3f}}}^{{+{up:.3f}}}$"


def _number(value: float | None) -> str:
    return "--" if value is None else f"${value:.3f}$"


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def _table(caption: str, headings: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [" & ".join(row) + r" \\" for row in body]
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
