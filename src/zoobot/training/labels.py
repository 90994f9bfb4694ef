"""What a catalog's labels ask a model to learn: classes, numbers, or the votes of a decision tree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from zoobot.data.catalog import hash_order
from zoobot.errors import CatalogError, SchemaError, SettingError
from zoobot.schemas import Answer, Question, Schema
from zoobot.training.losses import ClassificationLoss, RegressionLoss, get_multiquestion_loss

__all__ = ["TASKS", "Labels", "assign_folds", "find_scale", "make_loss", "read_labels"]

TASKS = ("classification", "regression", "votes")

_OTHER_COLUMNS = ("id_str", "file_loc", "bad_pixels", "fold")  # of tables of predictions
_MOST_CLASSES = 200
_MOST_WHOLE_NUMBERS = 10  # more different ones than this are measurements, unless said otherwise


@dataclass(frozen=True)
class Labels:
    """Galaxies that have labels, and these as a model learns them.

    Attributes:
        task: one of ``TASKS``.
        galaxies: their rows of the catalog.
        values: (galaxies, outputs) float32: 1 in the column of the class and 0 elsewhere, numbers, or votes.
        label_cols: names of the outputs.
        schema: the decision tree; for classes, one question of which each galaxy has one vote; none for numbers.
        unlabelled: how many galaxies of the catalog have no label.
    """

    task: str
    galaxies: pd.DataFrame
    values: NDArray[np.float32]
    label_cols: list[str]
    schema: Schema | None
    unlabelled: int

    def __len__(self) -> int:
        """How many galaxies have labels."""
        return len(self.values)

    def take(self, positions: NDArray[np.intp]) -> "Labels":
        """These galaxies alone."""
        return replace(self, galaxies=self.galaxies.iloc[positions], values=self.values[positions])

    @property
    def classes(self) -> NDArray[np.intp] | None:
        """The class of each galaxy, where there are classes."""
        return self.values.argmax(axis=1) if self.task == "classification" else None


def read_labels(
    catalog: pd.DataFrame, targets: Sequence[str] = (), *, task: str | None = None, schema: Schema | None = None
) -> Labels:
    """Take the labels of a catalog; galaxies without one are counted, and left out.

    Args:
        catalog: as :func:`zoobot.data.catalog.read_catalog` gives it, with the columns of votes of ``schema``.
        targets: columns with labels: one of classes, or some of numbers.
        task: one of ``TASKS``; when left out, votes with a schema, else classification if the column holds text,
            yes and no, or at most 10 different whole numbers, else regression.
        schema: whose columns of votes are the labels.

    Raises:
        SettingError: the settings contradict one another.
        CatalogError: the columns are missing, or hold what cannot be learnt.

    >>> catalog = pd.DataFrame({"id_str": list("abcde"), "ring": ["yes", "no", None, "no", "no"]})
    >>> labels = read_labels(catalog, ["ring"])
    >>> labels.label_cols, labels.values.tolist(), labels.unlabelled
    (['ring_no', 'ring_yes'], [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], 1)
    """
    if task is not None and task not in TASKS:
        raise SettingError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")
    if (schema is not None) != (task == "votes" or (task is None and schema is not None)):
        raise SettingError("task votes, and no other, needs a schema; its answers are the columns of votes")
    if (schema is None) != bool(targets):
        raise SettingError("give either the columns of labels (--target) or a schema of votes (--schema)")
    if schema is not None:
        return _read_votes(catalog, schema)
    missing = [name for name in targets if name not in catalog.columns]
    if missing:
        raise CatalogError(f"the catalog lacks {', '.join(missing)}; its columns are {', '.join(catalog.columns[:30])}")
    _check_names(targets)
    if task is None:
        task = "classification" if len(targets) == 1 and _are_classes(catalog[targets[0]]) else "regression"
    if task == "regression":
        return _read_numbers(catalog, list(targets))
    if len(targets) > 1:
        raise SettingError(f"classification takes one column of classes; got {', '.join(targets)}")
    return _read_classes(catalog, targets[0])


def _check_names(targets: Sequence[str]) -> None:
    """Refuse names that tables of predictions have for something else, which would be overwritten there."""
    taken = {*_OTHER_COLUMNS, *(f"{name}_predicted" for name in targets)}
    unfit = [name for place, name in enumerate(targets) if name in taken or name in targets[:place]]
    if unfit:
        raise SettingError(
            f"targets (--target): got {unfit[0]}, expected columns of labels, each once, and none of "
            f"{', '.join(_OTHER_COLUMNS)} and NAME_predicted, which tables of predictions have: rename the column"
        )


def _read_votes(catalog: pd.DataFrame, schema: Schema) -> Labels:
    votes = catalog[schema.label_cols].to_numpy(np.float32)
    voted = votes.sum(axis=1) > 0
    _check_some(voted, "votes")
    return Labels("votes", catalog[voted], votes[voted], schema.label_cols, schema, int((~voted).sum()))


def _read_numbers(catalog: pd.DataFrame, targets: list[str]) -> Labels:
    columns = []
    for name in targets:
        numbers = pd.to_numeric(catalog[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        given = _is_given(catalog[name])
        wrong = given & ~np.isfinite(numbers)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise CatalogError(
                f"column {name}, row {row + 1}: {str(catalog[name].iloc[row])[:40]!r} is no finite number "
                f"({int(wrong.sum())} like it); mend it, or learn classes with --task classification"
            )
        if len(np.unique(numbers[given])) < 2:
            raise CatalogError(f"column {name}: has fewer than two different numbers; there is nothing to learn")
        columns.append(numbers)
    values = np.stack(columns, axis=1)
    labelled = np.isfinite(values).all(axis=1)
    _check_some(labelled, "numbers")
    return Labels(
        "regression", catalog[labelled], values[labelled].astype(np.float32), targets, None, int((~labelled).sum())
    )


def _read_classes(catalog: pd.DataFrame, target: str) -> Labels:
    labelled = _is_given(catalog[target])
    _check_some(labelled, "classes")
    texts = [_as_text(value) for value in catalog[target][labelled]]
    names = sorted(set(texts))
    if not 2 <= len(names) <= _MOST_CLASSES:
        shown = f"{len(names)}" if len(names) > 1 else f"one, {names[0]!r}"
        raise CatalogError(f"column {target}: has {shown} classes; classification needs from 2 to {_MOST_CLASSES}")
    try:
        schema = Schema(target, (Question(target, tuple(Answer(target, name) for name in names)),))
    except SchemaError as error:  # of names with line breaks, or of thousands of letters
        raise CatalogError(f"column {target[:40]}: classes cannot have such names: {error}") from error
    places = {name: place for place, name in enumerate(names)}
    values = np.eye(len(names), dtype=np.float32)[[places[text] for text in texts]]
    return Labels("classification", catalog[labelled], values, schema.label_cols, schema, int((~labelled).sum()))


def _are_classes(column: "pd.Series[Any]") -> bool:
    given = column[_is_given(column)]
    numbers = pd.to_numeric(given, errors="coerce")
    if given.dtype == bool or numbers.isna().any():
        return True
    return bool((numbers % 1 == 0).all()) and numbers.nunique() <= _MOST_WHOLE_NUMBERS


def _is_given(column: "pd.Series[Any]") -> NDArray[np.bool_]:
    return (column.notna() & (column.astype(str).str.strip() != "")).to_numpy(bool)


def _as_text(value: object) -> str:
    """Write 1 and 1.0 alike: a column of whole numbers with gaps is read as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _check_some(labelled: NDArray[np.bool_], what: str) -> None:
    if int(labelled.sum()) < 4:
        raise CatalogError(f"only {int(labelled.sum())} galaxies have {what}; learning needs some, and some to test by")


def assign_folds(labels: Labels, folds: int, seed: int = 0) -> NDArray[np.intp]:
    """Divide galaxies into folds of equal size, each with its share of every class: the fold of each, from 0.

    The order within a class is that of a keyed hash (BLAKE2b) of ``id_str``, whatever the order of the catalog.

    Raises:
        SettingError: there are fewer galaxies than folds, or fewer than two folds.

    >>> labels = read_labels(pd.DataFrame({"id_str": list("abcdef"), "ring": [0, 0, 0, 0, 1, 1]}), ["ring"])
    >>> folds = assign_folds(labels, 2)
    >>> [labels.values[folds == fold].sum(axis=0).tolist() for fold in (0, 1)]
    [[2.0, 1.0], [2.0, 1.0]]
    """
    if not 2 <= folds <= len(labels):
        raise SettingError(f"folds is {folds}; it must be from 2 to the number of labelled galaxies, {len(labels)}")
    order = hash_order(labels.galaxies["id_str"], "folds", seed)
    classes = labels.classes
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    found = np.empty(len(labels), np.intp)
    found[order] = np.arange(len(labels)) % folds
    return found


def find_scale(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """The standard deviation of each column of numbers (galaxies, numbers); 1 where they are all alike.

    >>> find_scale(np.array([[1e-17, 5], [3e-17, 5]], np.float32)).round(20).tolist()
    [1e-17, 1.0]
    """
    spread = numbers.std(axis=0, dtype=np.float64)
    return np.where(spread > 0, spread, 1.0)


def make_loss(
    labels: Labels, galaxies: NDArray[np.intp], *, balance: bool = False, smoothing: float = 0.0
) -> nn.Module:
    """The loss for the task, of labels and outputs (galaxies, outputs).

    Args:
        labels: of all galaxies.
        galaxies: positions of those to learn from.
        balance: give rare classes more weight, galaxies / (classes × galaxies of the class).
        smoothing: of class labels, from 0 to below 1.

    Raises:
        SettingError: ``balance`` or ``smoothing`` is given, and there are no classes.
    """
    if labels.task != "classification" and (balance or smoothing):
        raise SettingError(
            f"balance and label_smoothing are for classes, and the task is {labels.task}; leave them out"
        )
    values = labels.values[galaxies]
    if labels.schema is None:
        return RegressionLoss(find_scale(values).tolist())
    if labels.task == "votes":
        return get_multiquestion_loss(labels.schema.question_index_groups)
    counts = values.sum(axis=0).clip(min=1)
    weights = (len(values) / (len(counts) * counts)).tolist() if balance else None
    return ClassificationLoss(weights, smoothing)
