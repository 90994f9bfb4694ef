"""Scores of predicted labels: of classes against one label a galaxy, and of numbers."""

import numpy as np
from numpy.typing import ArrayLike

from zoobot.errors import SettingError
from zoobot.stats.classification import area_under_roc, classification_scores

__all__ = ["score_classes", "score_numbers"]

_LEAST_CHANCE = 1e-12


def score_classes(classes: ArrayLike, chances: ArrayLike) -> dict[str, float]:
    """Score the chances of classes: accuracy and balanced accuracy, area under the ROC curve, and log loss.

    Balanced accuracy is the mean over classes of the share that is found (recall). The area is that of the second class
    where there are two, else the mean of each class against the rest, over classes that have galaxies and do not have
    all of them; NaN where there is none. Log loss is the mean of −log of the chance of the true class. ``majority`` is
    the accuracy of always naming the commonest class.

    Args:
        classes: (galaxies,), the number of each galaxy's class.
        chances: (galaxies, classes), each row summing to 1.

    Raises:
        SettingError: shapes do not fit.

    >>> scores = score_classes([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    >>> round(scores["accuracy"], 3), scores["auc"]
    (0.667, 1.0)
    """
    truth, predicted = np.asarray(classes), np.asarray(chances, np.float64)
    if predicted.ndim != 2 or truth.shape != predicted.shape[:1] or not len(truth):
        raise SettingError(
            f"classes, chances: got shapes {truth.shape} and {predicted.shape}, expected (galaxies,) and "
            "(galaxies, classes), not empty"
        )
    number = predicted.shape[1]
    confusion = np.zeros((number, number))
    np.add.at(confusion, (truth, predicted.argmax(axis=1)), 1)
    scores = classification_scores(confusion)
    present = [k for k in ([1] if number == 2 else range(number)) if 0 < (truth == k).sum() < len(truth)]
    areas = [float(area_under_roc(truth == k, predicted[:, k])) for k in present]
    recalls = [confusion[k, k] / confusion[k].sum() for k in range(number) if confusion[k].any()]
    return {
        "accuracy": float(scores["accuracy"]),
        "balanced_accuracy": float(np.mean(recalls)),
        "auc": float(np.mean(areas)) if areas else float("nan"),
        "log_loss": float(-np.log(predicted[np.arange(len(truth)), truth].clip(_LEAST_CHANCE)).mean()),
        "majority": float(confusion.sum(axis=1).max() / len(truth)),
    }


def score_numbers(numbers: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Score predicted numbers: root-mean-square and mean absolute error, and the share of variance explained, R².

    With several numbers a galaxy, each score is the mean over them. R² is 1 − Σ(error²) / Σ((number − mean)²), NaN
    where all numbers are alike.

    Args:
        numbers: (galaxies, numbers).
        predicted: alike.

    Raises:
        SettingError: shapes do not fit.

    >>> scores = score_numbers([[1.0], [3.0]], [[1.0], [2.0]])
    >>> round(scores["rmse"], 3), scores["mae"], scores["r2"]
    (0.707, 0.5, 0.5)
    """
    truth, found = np.asarray(numbers, np.float64), np.asarray(predicted, np.float64)
    if truth.shape != found.shape or truth.ndim != 2 or not len(truth):
        raise SettingError(f"numbers, predicted: got shapes {truth.shape} and {found.shape}, expected two alike")
    errors = found - truth
    variances = truth.var(axis=0)
    shares = np.divide((errors**2).mean(axis=0), variances, out=np.full_like(variances, np.nan), where=variances > 0)
    return {
        "rmse": float(np.sqrt((errors**2).mean(axis=0)).mean()),
        "mae": float(np.abs(errors).mean()),
        "r2": float((1 - shares).mean()),
    }
