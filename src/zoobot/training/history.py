"""The record of a training run: one row of losses an epoch, and its picture."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from zoobot.errors import TrainingError
from zoobot.files import replace_atomically

__all__ = ["HISTORY_NAME", "History", "draw_learning_curve", "save_learning_curve"]

HISTORY_NAME = "history.csv"
_COLOURS = {"train": "#0072B2", "test": "#D55E00"}  # Okabe & Ito: told apart by colour-blind readers


class History:
    """The rows of ``history.csv`` in a model's folder: a mapping of numbers for each epoch.

    Args:
        folder: where the file lies or will lie.
        epochs: go on after this many epochs of an earlier run; 0 begins anew.
    """

    def __init__(self, folder: str | Path, epochs: int = 0) -> None:
        self.path = Path(folder) / HISTORY_NAME
        self.rows: list[dict[str, float]] = []
        if epochs and self.path.exists():
            try:
                frame = pd.read_csv(self.path)
                self.rows = frame[frame["epoch"] <= epochs].to_dict("records")  # type: ignore[assignment]
            except (ValueError, KeyError, TypeError) as error:  # pandas' own are all ValueErrors
                raise TrainingError(f"{self.path} cannot be read ({error}); move it away and resume") from error

    def add(self, row: dict[str, float]) -> None:
        """Append an epoch and write the file anew."""
        self.rows.append(row)
        with replace_atomically(self.path) as path:
            pd.DataFrame(self.rows).to_csv(path, index=False)


def draw_learning_curve(history: pd.DataFrame) -> Figure:
    """Draw the losses of training and test galaxies against the epoch, and mark the best.

    Args:
        history: columns ``epoch``, ``train_loss`` and ``test_loss``, as in ``history.csv``.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, colour in _COLOURS.items():
        axes.plot(history["epoch"], history[f"{name}_loss"], color=colour, label=f"{name} galaxies", marker=".")
    best = history.iloc[int(history["test_loss"].to_numpy().argmin())]
    axes.plot(
        best["epoch"],
        best["test_loss"],
        "o",
        ms=10,
        mfc="none",
        color=_COLOURS["test"],
        label="best, the weights kept",
    )
    axes.set(xlabel="Epoch", ylabel="Loss a galaxy (negative log-likelihood)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def save_learning_curve(folder: str | Path) -> Path:
    """Draw the history of a model's folder into ``learning_curve.png`` there."""
    folder = Path(folder)
    figure = draw_learning_curve(pd.read_csv(folder / HISTORY_NAME))
    path = folder / "learning_curve.png"
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path
