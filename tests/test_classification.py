"""Classes and ROC curves: cases counted by hand, and laws."""

import numpy as np
import pytest
from scipy import integrate, stats

from zoobot.errors import SettingError
from zoobot.stats.classification import area_under_roc, classification_scores, roc_curve


def test_scores_counted_by_hand():
    # 4 cats (3 right, 1 taken for a dog), 2 dogs (1 right, 1 taken for a cat), no birds at all
    scores = classification_scores([[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["precision_macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["recall_macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["f1_macro"] == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert scores["precision_weighted"] == pytest.approx((4 * 3 / 4 + 2 * 1 / 2) / 6)
    assert scores["f1_weighted"] == pytest.approx((4 * 6 / 8 + 2 * 2 / 4) / 6)


def test_an_answer_predicted_of_none_or_true_of_none_scores_zero():
    scores = classification_scores([[2, 0], [2, 0]])  # all are taken for the first
    assert scores["precision_macro"] == pytest.approx((1 / 2 + 0) / 2)
    assert scores["recall_macro"] == pytest.approx(1 / 2)
    assert scores["f1_macro"] == pytest.approx((4 / 6 + 0) / 2)
    assert classification_scores([[2, 2], [0, 0]])["recall_macro"] == pytest.approx(1 / 4)


def test_laws_of_classification():
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 9, (50, 4, 4))
    scores = classification_scores(matrices)
    np.testing.assert_allclose(scores["recall_weighted"], scores["accuracy"])
    order = rng.permutation(4)
    permuted = classification_scores(matrices[:, order][:, :, order])
    for name, values in scores.items():
        assert values.shape == (50,)
        np.testing.assert_allclose(permuted[name], values)
        np.testing.assert_allclose(classification_scores(np.eye(4) * 5)[name], 1)
        assert np.isnan(classification_scores(np.zeros((4, 4)))[name])
    with pytest.raises(SettingError, match="confusion: got shape"):
        classification_scores(np.ones((2, 3)))


def test_area_is_that_of_mann_whitney_and_of_the_curve():
    rng = np.random.default_rng(1)
    positive, scores = rng.random(300) < 0.3, rng.integers(0, 40, 300) / 40  # with ties
    scores = scores + 0.2 * positive
    expected = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic / (positive.sum() * (~positive).sum())
    assert area_under_roc(positive, scores) == pytest.approx(expected)
    curve = roc_curve(positive, scores)
    assert integrate.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(expected)
    assert (np.diff(curve.false_positive_rate) >= 0).all()
    assert (np.diff(curve.true_positive_rate) >= 0).all()
    assert (curve.true_positive_rate[-1], curve.false_positive_rate[-1]) == (1, 1)


def test_a_curve_has_its_corners_only_and_its_rates_are_those_above_each_threshold():
    rng = np.random.default_rng(4)
    positive, scores = rng.random(200) < 0.4, rng.integers(0, 30, 200) / 30
    curve = roc_curve(positive, scores)
    for across, upwards, threshold in zip(*vars(curve).values(), strict=True):
        assert across == (scores[~positive] >= threshold).mean()
        assert upwards == (scores[positive] >= threshold).mean()
    assert len(curve.thresholds) < 31
    perfect = roc_curve(positive, positive + rng.random(200) / 2)
    assert perfect.true_positive_rate.tolist() == [0, 1, 1]


def test_area_does_not_change_with_the_scale_and_turns_round_with_the_sign():
    rng = np.random.default_rng(2)
    positive, scores = rng.random(200) < 0.5, rng.random(200)
    area = area_under_roc(positive, scores)
    assert area_under_roc(positive, np.exp(5 * scores)) == area
    assert area_under_roc(positive, -scores) == pytest.approx(1 - area)
    assert area_under_roc(~positive, scores) == pytest.approx(1 - area)
    assert area_under_roc(positive, positive) == 1
    assert area_under_roc(positive, np.ones(200)) == 0.5


def test_weights_stand_for_copies():
    rng = np.random.default_rng(3)
    positive, scores = rng.random(40) < 0.5, rng.integers(0, 9, 40)
    weights = rng.integers(0, 3, (20, 40))
    areas = area_under_roc(positive, scores, weights)
    for area, times in zip(areas, weights, strict=True):
        assert area == pytest.approx(area_under_roc(np.repeat(positive, times), np.repeat(scores, times)))


def test_areas_that_cannot_be():
    assert np.isnan(area_under_roc([True, True], [0.1, 0.2]))
    assert np.isnan(area_under_roc([], []))
    with pytest.raises(SettingError, match="all of one kind"):
        roc_curve([True, True], [0.1, 0.2])
    with pytest.raises(SettingError, match="NaN"):
        area_under_roc([True, False], [0.1, np.nan])
    with pytest.raises(SettingError, match="got shapes"):
        area_under_roc([True, False], [0.1])
    with pytest.raises(SettingError, match="weights"):
        area_under_roc([True, False], [0.1, 0.2], [1, 1])
