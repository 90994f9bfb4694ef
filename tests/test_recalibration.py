"""Recalibration: what it must leave alone, what it must find, and that files from strangers are checked."""

import json

import numpy as np
import pytest
from scipy import optimize

from zoobot.errors import SettingError
from zoobot.stats import recalibration as recalibrating
from zoobot.stats.calibration import coverage, transform_truth, transform_votes
from zoobot.stats.predictive import log_predictive
from zoobot.stats.recalibration import Recalibration, cross_recalibrate, fit_recalibration

GROUPS = ((0, 2), (3, 4))
PLAIN = Recalibration(GROUPS, (1.0, 1.0), (1.0, 1.0), (0.0, 0.0))


def survey(galaxies, seed=0, samples=3):
    """Concentrations, fractions drawn from them, and votes: a model that is the truth."""
    rng = np.random.default_rng(seed)
    parts = []
    for first, last in GROUPS:
        answers = last - first + 1
        mean = rng.dirichlet(np.full(answers, 0.8), galaxies)[:, None]
        mean = mean * np.exp(rng.normal(0, 0.2, (galaxies, samples, answers)))
        parts.append(1 + mean * np.exp(rng.normal(2.5, 0.7, (galaxies, 1, 1))))
    alpha = np.concatenate(parts, axis=2)
    drawn = rng.standard_gamma(alpha[np.arange(galaxies), rng.integers(samples, size=galaxies)])
    fractions = np.concatenate(
        [drawn[:, a : b + 1] / drawn[:, a : b + 1].sum(axis=1, keepdims=True) for a, b in GROUPS], axis=1
    )
    totals = rng.integers(1, 41, galaxies), rng.integers(0, 21, galaxies)
    votes = [rng.multinomial(n, fractions[:, a : b + 1]) for n, (a, b) in zip(totals, GROUPS, strict=True)]
    return alpha, fractions, np.concatenate(votes, axis=1)


@pytest.mark.parametrize("wrong", [3.0, 1 / 3])
def test_a_model_too_sure_or_not_sure_enough_is_brought_back(wrong):
    alpha, _, votes = survey(3000)
    other, truth, new_votes = survey(3000, seed=1)
    assert coverage(transform_truth(truth, other, GROUPS)).value == pytest.approx(0.9, abs=0.015)
    assert abs(coverage(transform_truth(truth, other * wrong, GROUPS)).value - 0.9) > 0.05
    fitted = fit_recalibration(votes, alpha * wrong, GROUPS)
    after = fitted.apply(other * wrong)
    for first, last in GROUPS:
        assert coverage(transform_truth(truth, after, GROUPS).take(first, last)).value == pytest.approx(0.9, abs=0.02)
        assert coverage(transform_votes(new_votes, after, GROUPS).take(first, last), 0.8).value == pytest.approx(
            0.8, abs=0.02
        )
    np.testing.assert_allclose(fitted.apply(other * wrong).sum(axis=2), other.sum(axis=2), rtol=0.25)


def test_a_right_model_is_hardly_changed():
    alpha, _, votes = survey(1000)
    fitted = fit_recalibration(votes, alpha, GROUPS)
    other, _, new_votes = survey(1000, seed=1)
    worse = log_predictive(new_votes, other, GROUPS) - log_predictive(new_votes, fitted.apply(other), GROUPS)
    assert (worse.mean(axis=0) < 0.005).all()  # of losses of some 4


def test_nothing_to_change_changes_not_a_bit():
    alpha = np.random.default_rng(0).lognormal(size=(7, 2, 5))
    np.testing.assert_array_equal(PLAIN.apply(alpha), alpha)
    half = Recalibration(GROUPS, (0.5, 1.0), (1.0, 1.0), (0.0, 0.0)).apply(alpha)
    np.testing.assert_allclose(half[..., :3], alpha[..., :3] / 2)
    np.testing.assert_array_equal(half[..., 3:], alpha[..., 3:])


def test_the_formula_by_hand():
    # A = 20, b = 4/3 and 18²/19; A' = 10 · 2 · 2^0.5
    found = Recalibration(((0, 1),), (2.0,), (0.5,), (1.0,)).apply([[[2.0, 18.0]]])
    shares = np.array([4 / 3, 324 / 19])
    np.testing.assert_allclose(found[0, 0], 20 * 2**0.5 * shares / shares.sum())
    assert found.min() > 0


def test_concentrations_get_below_the_heads_floor():
    assert Recalibration(((0, 1),), (0.1,), (1.0,), (5.0,)).apply([[1.01, 30.0]])[0, 0] < 0.05


def test_order_stays_and_extremes_stay_finite():
    alpha = np.array([[1e-300, 1e-8, 1.0, 5.0, 1e9]])
    for scale in (1e-3, 1e3):
        for exponent in (0.0, 3.0):
            found = Recalibration(((0, 4),), (scale,), (exponent,), (100.0,)).apply(alpha)
            assert np.isfinite(found).all()
            assert (found > 0).all()
            assert (np.diff(found) >= 0).all()


def test_slopes_are_those_of_the_loss():
    alpha, _, votes = survey(20)
    votes, alpha = votes[:, :3].astype(float), alpha[:, :, :3]
    at = np.array([0.3, 0.8, 0.6])

    def loss(parameters):
        return recalibrating._losses_and_slopes(votes, alpha, parameters)[0].sum()

    slopes = recalibrating._losses_and_slopes(votes, alpha, at)[1].sum(axis=0)
    np.testing.assert_allclose(slopes, optimize.approx_fprime(at, loss, 1e-6), rtol=1e-3)
    mapped = recalibrating._map(alpha, at)
    constant = loss(np.array([0.0, 1.0, 0.0])) + log_predictive(votes, alpha, [(0, 2)]).sum()
    assert loss(at) == pytest.approx(-log_predictive(votes, mapped, [(0, 2)]).sum() + constant)


def test_few_votes_change_nothing_or_little():
    alpha, _, votes = survey(15)
    assert fit_recalibration(votes, alpha * 3, GROUPS) == PLAIN
    alpha, _, votes = survey(300)
    votes[20:, 3:] = 0
    votes[:20, 3:] = np.clip(votes[:20, 3:], 0, 1)
    fitted = fit_recalibration(votes, alpha * 3, GROUPS)
    assert fitted.scales[0] < 0.6
    assert 0.1 < fitted.scales[1] <= 1.5
    votes[:] = 0
    assert fit_recalibration(votes, alpha, GROUPS) == PLAIN


def test_recalibration_lowers_the_loss_of_other_galaxies():
    alpha, _, votes = survey(600)
    wrong = 2 * alpha + 3  # a floor that is too high, and too sure
    after = cross_recalibrate(votes, wrong, GROUPS)
    for question, gain in enumerate((log_predictive(votes, after, GROUPS) - log_predictive(votes, wrong, GROUPS)).T):
        assert gain.mean() > 0.01, question
    np.testing.assert_array_equal(after, cross_recalibrate(votes, wrong, GROUPS))


def test_a_halfs_own_votes_do_not_touch_it():
    alpha, _, votes = survey(400)
    before = cross_recalibrate(votes, alpha * 3, GROUPS)
    half = recalibrating._split(400, 2, 0)
    changed = votes.copy()
    changed[half == 0] = changed[half == 0][::-1]
    after = cross_recalibrate(changed, alpha * 3, GROUPS)
    np.testing.assert_array_equal(after[half == 0], before[half == 0])
    assert (after[half == 1] != before[half == 1]).any()


def test_it_survives_json():
    fitted = Recalibration(GROUPS, (0.123456789012345, 2.0), (0.5, 1.0), (0.0, 3.0))
    assert Recalibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize(
    "change",
    [
        {"scales": [1.0]},
        {"scales": [0.0, 1.0]},
        {"scales": [1.0, float("nan")]},
        {"scales": [1.0, True]},
        {"scales": [1.0, "1"]},
        {"scales": [1.0, 10**400]},
        {"scales": 1.0},
        {"exponents": [1.0, -1.0]},
        {"offsets": [1.0, 1e9]},
        {"question_index_groups": [[0, 2], [4, 5]]},
        {"question_index_groups": [[0, 2], [3, 4.0]]},
        {"question_index_groups": [[0, 2], "34"]},
        {"question_index_groups": []},
        {"more": 1},
    ],
)
def test_strangers_are_checked(change):
    with pytest.raises(SettingError):
        Recalibration.from_dict({**PLAIN.to_dict(), **change})


@pytest.mark.parametrize("content", [None, [], {}, "scales", {"scales": [1.0]}])
def test_what_is_no_recalibration_is_refused(content):
    with pytest.raises(SettingError, match="recalibration: got"):
        Recalibration.from_dict(content)


def test_bad_arrays_are_refused():
    with pytest.raises(SettingError, match="concentrations"):
        PLAIN.apply(np.ones((3, 4)))
    with pytest.raises(SettingError, match="at most 1e9"):
        PLAIN.apply(np.zeros((3, 5)))
    with pytest.raises(SettingError, match="votes"):
        fit_recalibration(np.full((3, 5), np.nan), np.ones((3, 5)), GROUPS)
