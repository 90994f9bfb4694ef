"""Scores of classes and numbers against labels."""

import numpy as np
import pytest

from zoobot.errors import SettingError
from zoobot.stats.label_scores import score_classes, score_numbers


def test_scores_of_two_classes_by_hand():
    scores = score_classes([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    assert scores["accuracy"] == 0.75
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["auc"] == pytest.approx(2 / 3)  # the ring is above two of the three others
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.3, 0.6]).mean())
    assert scores["majority"] == 0.75


def test_the_area_of_many_classes_is_the_mean_of_each_against_the_rest():
    chances = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    truth = np.random.default_rng(1).integers(0, 3, 50)
    pairs = []
    for k in range(3):
        inside, outside = chances[truth == k, k], chances[truth != k, k]
        pairs.append((inside[:, None] > outside[None]).mean())
    assert score_classes(truth, chances)["auc"] == pytest.approx(np.mean(pairs))


def test_one_class_alone_has_no_area():
    assert np.isnan(score_classes([1, 1], [[0.5, 0.5], [0.2, 0.8]])["auc"])


def test_scores_of_numbers_by_hand():
    scores = score_numbers([[0.0], [2.0], [4.0]], [[1.0], [2.0], [2.0]])
    assert scores["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert scores["mae"] == 1.0
    assert scores["r2"] == pytest.approx(1 - 5 / 8)
    assert np.isnan(score_numbers([[1.0], [1.0]], [[1.0], [2.0]])["r2"])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(SettingError):
        score_classes([0, 1], [[0.5, 0.5]])
    with pytest.raises(SettingError):
        score_numbers([[1.0]], [[1.0, 2.0]])
