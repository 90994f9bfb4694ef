"""Agreement of predictions and votes: laws, scipy in float64, cases by hand."""

import numpy as np
import pytest
from scipy import stats

from zoobot.errors import SettingError
from zoobot.stats import agreement

GROUPS = [(0, 2), (3, 4)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_excess_loss_is_the_multinomials_log_probability_less_the_predictions(rng):
    votes = rng.integers(0, 20, (30, 5))
    alpha = np.exp(rng.normal(0, 2, (30, 5)))
    excess = agreement.excess_loss(votes, alpha, GROUPS)
    for galaxy in range(30):
        for question, (first, last) in enumerate(GROUPS):
            k, a = votes[galaxy, first : last + 1], alpha[galaxy, first : last + 1]
            best = stats.multinomial.logpmf(k, k.sum(), k / k.sum())
            predicted = stats.dirichlet_multinomial.logpmf(k, a, k.sum())
            assert excess[galaxy, question] == pytest.approx(best - predicted, abs=1e-9)


def test_excess_loss_is_never_negative_and_nothing_without_votes(rng):
    votes = rng.integers(0, 9, (500, 5)) * rng.integers(0, 2, (500, 5))
    votes[:50, 3:] = 0
    excess = agreement.excess_loss(votes, np.exp(rng.normal(0, 3, (500, 4, 5))), GROUPS)
    assert excess.min() > -1e-9
    assert (excess[:50, 1] == 0).all()


def test_relative_loss_is_one_for_all_fractions_alike_and_nothing_for_the_right_ones(rng):
    votes = rng.integers(1, 30, (100, 5)).astype(float)
    np.testing.assert_allclose(agreement.relative_loss(votes, np.ones((100, 3, 5)), GROUPS), 1)
    np.testing.assert_allclose(agreement.relative_loss(votes, 1e7 * votes, GROUPS), 0, atol=1e-4)
    assert (agreement.relative_loss(votes, 1e3 * votes[:, [2, 0, 1, 4, 3]], GROUPS) > 1).mean() > 0.5
    assert np.isnan(agreement.relative_loss(np.zeros((1, 5)), np.ones((1, 5)), GROUPS)).all()


def test_confusion_matrix_has_the_accuracy_on_its_diagonal(rng):
    votes = rng.integers(0, 4, (200, 2)).astype(float)
    fractions = rng.dirichlet([1, 1], 200)
    matrix = agreement.confusion_matrix(votes, fractions)
    voted = votes.any(axis=1)
    assert matrix.sum() == voted.sum() < 200
    right = votes[np.arange(200), fractions.argmax(axis=1)] == votes.max(axis=1)
    assert np.trace(matrix) == right[voted].sum()


def test_confusion_matrix_by_hand_and_with_the_answers_in_another_order(rng):
    votes, fractions = [[3, 1, 0], [0, 2, 2], [0, 0, 5], [1, 1, 1]], np.eye(3)[[1, 2, 2, 0]]
    matrix = agreement.confusion_matrix(votes, fractions)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 0, 0], [0, 0, 2]])
    votes, fractions = rng.random((50, 3)), rng.random((50, 3))
    order = [2, 0, 1]
    expected = agreement.confusion_matrix(votes, fractions)[np.ix_(order, order)]
    np.testing.assert_array_equal(agreement.confusion_matrix(votes[:, order], fractions[:, order]), expected)


def test_reliability_of_honest_predictions_lies_on_the_line(rng):
    fractions = rng.dirichlet([1, 1, 1], 20_000)
    votes = rng.multinomial(rng.integers(1, 40, 20_000), fractions)
    bins = agreement.reliability(votes, fractions, most_bins=10)
    assert (bins.galaxies == 2_000).all()
    assert (np.diff(bins.confidence) > 0).all()
    assert (np.abs(bins.agreement - bins.confidence) < 4 * bins.standard_error).all()
    assert bins.standard_error.max() < 0.01


def test_galaxies_of_one_confidence_stay_together_whatever_their_order(rng):
    fractions = np.repeat([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], [300, 50, 10], axis=0)
    votes = rng.multinomial(5, fractions)
    bins = agreement.reliability(votes, fractions)
    assert bins.galaxies.tolist() == [60, 300]
    assert bins.confidence[1] == pytest.approx(0.8)
    order = rng.permutation(360)
    np.testing.assert_allclose(agreement.reliability(votes[order], fractions[order]).agreement, bins.agreement)


def test_calibration_error_is_the_weighted_distance_from_the_line(rng):
    votes, fractions = rng.multinomial(9, [0.5, 0.3, 0.2], 500), rng.dirichlet([3, 2, 1], 500)
    bins = agreement.reliability(votes, fractions)
    total = agreement.sum_calibration_errors(agreement.bin_by_confidence(votes, fractions).sum(axis=0))
    assert total == pytest.approx(bins.galaxies @ np.abs(bins.agreement - bins.confidence))


def test_standard_error_is_binomial_for_single_votes_and_the_scatter_of_galaxies_otherwise(rng):
    answers = rng.integers(0, 2, 100)
    fractions = np.tile([0.6, 0.4], (100, 1))
    single = agreement.reliability(np.eye(2)[answers], fractions, most_bins=1)
    share = (answers == 0).mean()
    assert single.agreement[0] == pytest.approx(share)
    assert single.standard_error[0] == pytest.approx(np.sqrt(share * (1 - share) / 99))
    many = agreement.reliability(np.eye(2)[answers] * 40, fractions, most_bins=1)
    assert many.standard_error[0] == pytest.approx(single.standard_error[0])  # 40 votes of one mind are one


def test_few_galaxies_share_a_bin_and_none_make_none():
    few = agreement.reliability([[3, 1]] * 30, [[0.7, 0.3]] * 30, per_bin=20)
    assert few.galaxies.tolist() == [30]
    none = agreement.reliability(np.zeros((5, 2)), np.full((5, 2), 0.5))
    assert none.galaxies.size == none.agreement.size == 0


def test_truth_compared_with_itself_and_with_scipy(rng):
    truth = rng.dirichlet([1, 2], 50)
    same = agreement.compare_with_truth(truth, truth - 0.1, truth + 0.1, truth)
    assert (same.correlation, same.rms_error, same.coverage, same.galaxies) == (pytest.approx(1), 0, 1, 50)
    other = rng.dirichlet([2, 1], 50)
    found = agreement.compare_with_truth(other, other, other, truth)
    assert found.correlation == pytest.approx(stats.pearsonr(other[:, 0], truth[:, 0])[0])
    assert found.coverage == 0


def test_galaxies_without_truth_do_not_count():
    found = agreement.compare_with_truth([[0.5, 0.5]] * 2, [[0, 0]] * 2, [[1, 1]] * 2, [[0.5, 0.5], [np.nan] * 2])
    assert (found.galaxies, found.rms_error) == (1, 0)
    assert np.isnan(found.correlation)  # of one galaxy there is none
    assert agreement.compare_with_truth(*[np.full((1, 2), np.nan)] * 4).galaxies == 0


def test_bad_input():
    with pytest.raises(SettingError, match="shapes"):
        agreement.confusion_matrix([[1, 2]], [[1, 2, 3]])
    with pytest.raises(SettingError, match="per_bin"):
        agreement.reliability([[1, 2]], [[0.5, 0.5]], per_bin=0)
    with pytest.raises(SettingError, match="votes"):
        agreement.excess_loss([[-1, 2]], [[0.5, 0.5]], [(0, 1)])
