"""CRPS of votes: by hand, by its other formula, and limiting cases."""

import numpy as np
import pytest
from scipy import stats

from zoobot.errors import SettingError
from zoobot.stats.galaxy_scores import compare_leading, crps, find_leading, measure_fractions
from zoobot.stats.predictive import vote_probabilities


def test_by_hand():
    # uniform on 0, 1, 2 of 2; observed 2 and 0: ((1/3)² + (2/3)²) / 2
    np.testing.assert_allclose(crps([[2, 0]], [[1.0, 1.0]], [(0, 1)]), [[5 / 18, 5 / 18]])


def test_is_the_mean_distance_less_half_that_of_two_draws():
    rng = np.random.default_rng(0)
    groups = [(0, 2), (3, 4)]
    alpha, votes = 0.3 + 9 * rng.random((30, 4, 5)), rng.integers(0, 9, (30, 5)).astype(float)
    votes[::5, 3:] = 0
    scores = crps(votes, alpha, groups)
    totals = np.stack([votes[:, :3].sum(axis=1), votes[:, 3:].sum(axis=1)], axis=1)
    p = vote_probabilities(totals, alpha, groups)
    n = np.arange(p.shape[-1])
    far = (p * np.abs(n - votes[..., None])).sum(axis=-1)
    spread = np.einsum("gai,gaj,ij->ga", p, p, np.abs(n[:, None] - n))
    size = totals[:, [0, 0, 0, 1, 1]]
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(scores, (far - spread / 2) / size, atol=1e-12)
    assert np.isnan(scores[::5, 3:]).all()
    assert np.isfinite(scores[:, :3]).all()


def test_votes_that_are_not_whole_are_made_so_without_losing_any():
    alpha, groups = [[2.0, 3.0, 1.0]], [(0, 2)]
    np.testing.assert_array_equal(crps([[0.4, 0.4, 2.2]], alpha, groups), crps([[1, 0, 2]], alpha, groups))
    assert np.isnan(crps([[0.1, 0.1, 0.1]], alpha, groups)).all()


def test_leading_answers_by_hand():
    votes = np.array([[3.0, 1, 0], [0, 2, 2], [0, 2, 2], [5, 0, 4]])
    fractions = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6], [0.6, 0.2, 0.2], [0.2, 0.4, 0.4]])
    cells = [tuple(np.argwhere(each)[0]) for each in compare_leading(votes, fractions)]
    assert cells == [(0, 0), (2, 2), (1, 0), (0, 1)]
    assert measure_fractions(votes, fractions)["correct"].tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(find_leading(votes[:2]), [[True, False, False], [False, True, True]])


def test_sure_and_right_is_zero_and_sure_and_wrong_the_error():
    sure = [[1e9, 1e-6], [1e9, 1e-6]]
    np.testing.assert_allclose(crps([[20, 0], [5, 15]], sure, [(0, 1)]), [[0, 0], [0.75, 0.75]], atol=1e-9)


def test_a_right_prediction_scores_best_on_average():
    rng = np.random.default_rng(1)
    k = stats.betabinom(20, 3, 5).rvs(4000, random_state=rng)
    votes = np.stack([k, 20 - k], axis=1)

    def score(alpha):
        return crps(votes, np.broadcast_to(alpha, votes.shape), [(0, 1)]).mean()

    best = score([3.0, 5.0])
    assert all(score(other) > best for other in ([5.0, 3.0], [0.6, 1.0], [15.0, 25.0]))


def test_bad_input():
    with pytest.raises(SettingError, match="votes: got shape"):
        crps([[1, 2, 3]], [[1.0, 1.0]], [(0, 1)])
    with pytest.raises(SettingError, match="concentrations"):
        crps([[1, 2]], [[1.0, 0.0]], [(0, 1)])
