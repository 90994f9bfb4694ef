"""Recalibration: what it must leave alone, what it must find, and that files from strangers are checked."""

import json

import numpy as np
import pytest

from zoobot.errors import SettingError
from zoobot.stats import concentrations
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


@pytest.mark.parametrize("galaxies", [2, 40])  # of two the penalty is the most
def test_what_is_minimised_is_the_loss_with_its_penalty_and_slopes_are_its_slopes(galaxies):
    alpha, _, votes = survey(galaxies)
    votes, alpha = votes[:, :3].astype(float), alpha[:, :, :3]
    at = np.array([1.3, 0.4, 2.6])

    def loss(parameters):
        return recalibrating._penalised_loss(parameters, votes, alpha)[0]

    mapped = Recalibration(((0, 2),), (np.exp(1.3),), (0.4,), (2.6,)).apply(alpha)
    penalty = (1.3**2 + 0.6**2 + 2.6**2) / 2
    expected = (penalty - log_predictive(votes, mapped, [(0, 2)]).sum()) / galaxies
    assert loss(at) == pytest.approx(expected, rel=1e-12)
    slopes = recalibrating._penalised_loss(at, votes, alpha)[1]
    for change in np.eye(3) * 1e-5:  # central differences
        assert slopes[change > 0] == pytest.approx((loss(at + change) - loss(at - change)) / 2e-5, rel=1e-6, abs=1e-8)


def test_that_with_the_least_loss_on_parts_left_out_is_taken():
    scale_only = [(-7.0, 7.0), (1.0, 1.0), (0.0, 0.0)]
    everything = [(-7.0, 7.0), (0.0, 3.0), (0.0, 100.0)]
    taken = []
    for seed in range(8):
        alpha, _, votes = survey(60, seed=seed)
        wrong = (1, 1.5, 4)[seed % 3] * alpha[:, :, :3]
        k = votes[:, :3].astype(float)
        parts = recalibrating._split(60, 5, seed=0)
        losses = [-log_predictive(k, wrong, [(0, 2)]).sum()]
        for bounds in (scale_only, everything):
            start = recalibrating._minimise(k, wrong, bounds, np.array([0.0, 1.0, 0.0]))
            losses.append(0)
            for part in range(5):
                rest, left_out = parts != part, parts == part
                found = recalibrating._minimise(k[rest], wrong[rest], bounds, start)
                mapped = recalibrating._map(wrong[left_out], found)
                losses[-1] -= log_predictive(k[left_out], mapped, [(0, 2)]).sum()
        log_scale, *others = recalibrating._fit_question(k, wrong)
        taken.append(2 if others != [1, 0] else 1 if log_scale != 0 else 0)
        assert taken[-1] == np.argmin(losses), seed
    assert set(taken) == {0, 1, 2}


def test_parts_are_of_one_size_and_cover_everything_once():
    parts = recalibrating._split(103, 5, seed=0)
    assert sorted(np.bincount(parts)) == [20, 20, 21, 21, 21]
    assert (parts != np.sort(parts)).any()


def test_an_exponent_and_an_offset_are_found():
    def spoil(alpha):  # A² / 10 in place of A; a floor of 4 in place of 1
        total = alpha[..., :3].sum(axis=2, keepdims=True)
        return np.concatenate([alpha[..., :3] * total / 10, alpha[..., 3:] + 3], axis=2)

    alpha, _, votes = survey(1500)
    fitted = fit_recalibration(votes, spoil(alpha), GROUPS)
    assert fitted.exponents[0] == pytest.approx(0.5, abs=0.1)
    assert fitted.offsets[1] > 1
    other, _, new_votes = survey(1500, seed=1)
    truth, before, after = (
        log_predictive(new_votes, each, GROUPS).mean(axis=0)
        for each in (other, spoil(other), fitted.apply(spoil(other)))
    )
    assert (truth - after < 0.3 * (truth - before)).all()


def test_size_of_chunks_does_not_matter(monkeypatch):
    alpha = survey(40)[0]
    fitted = Recalibration(GROUPS, (0.5, 1.0), (0.7, 1.0), (1.0, 0.0))
    expected = fitted.apply(alpha)
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 45)
    np.testing.assert_array_equal(fitted.apply(alpha), expected)


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
