"""How good finetuning is: cross-validation, and how the scores grow with the number of labels."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoobot.data import tables
from zoobot.data.catalog import hash_order
from zoobot.errors import SettingError, TrainingError
from zoobot.estimators.checkpoint import load_config
from zoobot.files import replace_atomically
from zoobot.progress import progress_bar
from zoobot.training.finetune import FinetuneConfig, Learner
from zoobot.training.labels import Labels, assign_folds

__all__ = ["MAIN_SCORES", "CrossValidated", "choose_labels", "cross_validate", "draw_scores"]

MAIN_SCORES = {"classification": "auc", "regression": "r2", "votes": "loss"}
"""The score that is drawn, by task."""

_INK, _FAINT = "#0072B2", "#8fbfe0"
_SCORES, _PREDICTIONS, _PICTURE = "scores.csv", "predictions.csv", "scores.png"


@dataclass(frozen=True)
class CrossValidated:
    """What :func:`cross_validate` found.

    Attributes:
        task: what was learnt.
        unlabelled: how many galaxies of the catalog have no label.
        scores: a row for each fold and number of labels: ``labels`` given (of which, unless the head alone learns, a
            fifth is held back to stop by), ``fold``, ``galaxies`` judged by, and the scores on these.
        predictions: a row for each galaxy: ``id_str``, ``file_loc``, its fold, and beside its labels what the model
            said that learnt from all the other folds: for numbers ``<name>_predicted``, for votes the concentrations
            ``<answer>_predicted``, for classes ``<target>_predicted`` and ``<target>_<class>_probability``.
    """

    task: str
    unlabelled: int
    scores: pd.DataFrame
    predictions: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """A row for each number of labels: each score's mean over folds, and its standard error ``<score>_error``."""
        names = [name for name in self.scores.columns if name not in ("labels", "fold", "galaxies")]
        grouped = self.scores.groupby("labels")[names]
        errors: pd.DataFrame = grouped.std() / np.sqrt(grouped.count().to_numpy())
        return grouped.mean().join(errors.add_suffix("_error")).reset_index()


def cross_validate(
    config: FinetuneConfig,
    save_dir: str | Path,
    *,
    folds: int = 5,
    label_counts: Sequence[int] = (),
    overwrite: bool = False,
) -> CrossValidated:
    """Train on all folds but one and judge on that one, for each in turn; also on fewer labels, if that is wanted.

    Fewer labels are part of the more, and keep the shares of the classes. Writes to ``save_dir``: ``scores.csv``,
    ``predictions.csv`` and ``scores.png``, as :class:`CrossValidated` has them; no model is kept.

    Args:
        config: how to train.
        save_dir: a folder, made if need be.
        folds: how many.
        label_counts: numbers of labels to learn from, besides all.
        overwrite: replace what the folder holds of an earlier cross-validation.

    Raises:
        SettingError: there are too few labels for so many folds or so many labels.
        TrainingError: the folder holds one of these files already, or training fails.
        CatalogError, ImageError, ModelError: as :func:`zoobot.training.finetune.finetune`.
    """
    folder = Path(save_dir)
    taken = [name for name in (_SCORES, _PREDICTIONS, _PICTURE) if (folder / name).exists()]
    if taken and not overwrite:
        raise TrainingError(f"{folder} holds {taken[0]}; replace it with --overwrite, or choose another folder")
    learner = Learner(config)
    labels = learner.labels
    fold_of = assign_folds(labels, folds, config.seed)
    most = len(labels) - int(np.bincount(fold_of).max())
    wrong = [count for count in label_counts if not 4 <= count <= most]
    if wrong:
        raise SettingError(f"label_counts: got {wrong[0]}; with {folds} folds there are from 4 to {most} to learn from")
    counts = sorted({*label_counts, most})
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()  # not after hours: it cannot be written to
    rows, outputs = [], np.full(labels.values.shape, np.nan, np.float32)
    with progress_bar("cross-validating", folds * len(counts), unit="trainings") as advance:
        for fold in range(folds):
            test, rest = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
            for count in counts:
                train = rest if count == most else rest[choose_labels(labels, rest, count, config.seed)]
                predicted = _train_and_predict(learner, train, test)
                scores = learner.score(test, predicted)
                rows.append({"labels": count, "fold": fold, "galaxies": len(test), **scores})
                advance(1, f"{MAIN_SCORES[labels.task]} {scores[MAIN_SCORES[labels.task]]:.3f}")
            outputs[test] = predicted  # of all the labels there are, the last
    found = CrossValidated(labels.task, labels.unlabelled, pd.DataFrame(rows), _tabulate(labels, fold_of, outputs))
    tables.write_table(found.predictions, folder / _PREDICTIONS)
    with replace_atomically(folder / _PICTURE) as path:
        draw_scores(found).savefig(path, format="png", dpi=120)
    tables.write_table(found.scores, folder / _SCORES)
    return found


def _train_and_predict(learner: Learner, train: NDArray[np.intp], test: NDArray[np.intp]) -> NDArray[np.float32]:
    """Train without a look at the galaxies to judge by: a fifth of the others is held back to stop by."""
    if learner.config.layers == 0:  # which stops by nothing
        inner = np.zeros(len(train), bool)
    else:
        inner = assign_folds(learner.labels.take(train), min(5, len(train)), learner.config.seed) == 0
    with tempfile.TemporaryDirectory() as folder:
        model = learner.train(train[~inner], train[inner], Path(folder, "model"), show=False)
        if not load_config(Path(folder, "model"))["metadata"]["finished"]:  # Ctrl-C ends a training early, and well
            raise KeyboardInterrupt
    return learner.predict(model, test)


def choose_labels(labels: Labels, galaxies: NDArray[np.intp], count: int, seed: int = 0) -> NDArray[np.intp]:
    """Choose some galaxies, positions among ``galaxies``: each class keeps its share, and fewer are part of more."""
    ids = labels.galaxies["id_str"].iloc[galaxies]
    order = hash_order(ids, "labels", seed)
    classes = np.zeros(len(ids), int) if labels.classes is None else labels.classes[galaxies]
    place = np.empty(len(ids))
    for each in np.unique(classes):
        members = order[classes[order] == each]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")[:count]


def _tabulate(labels: Labels, folds: NDArray[np.intp], outputs: NDArray[np.float32]) -> pd.DataFrame:
    table = labels.galaxies[["id_str", "file_loc"]].reset_index(drop=True).assign(fold=folds)
    if labels.classes is None or labels.schema is None:
        for name, values, predicted in zip(labels.label_cols, labels.values.T, outputs.T, strict=True):
            table = table.assign(**{name: values, f"{name}_predicted": predicted})
        return table
    (question,) = labels.schema.questions
    classes = np.array([answer.text for answer in question.answers], object)
    said = {question.name: classes[labels.classes], f"{question.name}_predicted": classes[outputs.argmax(axis=1)]}
    chances = {f"{name}_probability": column for name, column in zip(labels.label_cols, outputs.T, strict=True)}
    return table.assign(**said, **chances)


def draw_scores(found: CrossValidated) -> Figure:
    """Draw the score of each fold, and their mean with its standard error, against the number of labels learnt from."""
    name = MAIN_SCORES[found.task]
    summary = found.summary()
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(found.scores["labels"], found.scores[name], "o", color=_FAINT, label="each fold")
    axes.errorbar(
        summary["labels"], summary[name], yerr=summary[f"{name}_error"], fmt="o-", color=_INK, capsize=3, label="mean"
    )
    for label, score in zip(summary["labels"], summary[name], strict=True):
        axes.annotate(f"{score:.3f}", (label, score), xytext=(6, 6), textcoords="offset points", color=_INK)
    axes.set_xscale("log")
    axes.set_xticks(summary["labels"], [f"{label:g}" for label in summary["labels"]])
    axes.minorticks_off()
    axes.margins(x=0.15)
    axes.set_xlabel("labels learnt from")
    axes.set_ylabel({"auc": "area under the ROC curve", "r2": "share of variance explained", "loss": "loss"}[name])
    axes.legend(frameon=False, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
