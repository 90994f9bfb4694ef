"""Laws of expected fractions, their intervals and the probability of votes."""

import itertools

import numpy as np
import pytest
from scipy import special, stats

from zoobot.errors import SettingError
from zoobot.stats import dirichlet

GROUPS = [(0, 2), (3, 4), (5, 9)]


def made_up(galaxies=60, samples=5, lowest=1.0, highest=101.0, seed=0):
    rng = np.random.default_rng(seed)
    return lowest * (highest / lowest) ** rng.random((galaxies, samples, 10))


def rest_of_question(alpha):
    rest = np.empty_like(alpha)
    for first, last in GROUPS:
        question = alpha[..., first : last + 1]
        rest[..., first : last + 1] = question.sum(axis=-1, keepdims=True) - question
    return rest


def mixture_cdf(alpha, x):
    return special.betainc(alpha, rest_of_question(alpha), x[:, None, :]).mean(axis=1)


def test_expected_fractions_sum_to_one_and_average_samples():
    alpha = made_up()
    fractions = dirichlet.expected_fractions(alpha, GROUPS)
    for first, last in GROUPS:
        np.testing.assert_allclose(fractions[:, first : last + 1].sum(axis=1), 1, rtol=1e-12)
    each = [dirichlet.expected_fractions(alpha[:, sample], GROUPS) for sample in range(5)]
    np.testing.assert_allclose(fractions, np.mean(each, axis=0), rtol=1e-12)


@pytest.mark.parametrize("credibility", [0.5, 0.9, 0.99])
def test_one_sample_gives_the_quantiles_of_the_beta(credibility):
    alpha = made_up(samples=1)
    edges = dirichlet.fraction_intervals(alpha, GROUPS, credibility)
    for edge, probability in zip(edges, (0.5 - credibility / 2, 0.5 + credibility / 2), strict=True):
        expected = stats.beta.ppf(probability, alpha, rest_of_question(alpha))[:, 0]
        np.testing.assert_allclose(edge, expected, atol=1e-6)


@pytest.mark.parametrize(("lowest", "highest"), [(1, 101), (1, 3), (1, 1e4), (0.01, 10), (1e3, 1e6)])
def test_mixture_holds_the_stated_probability_between_its_edges(lowest, highest):
    alpha = made_up(lowest=lowest, highest=highest)
    for edge, target in zip(dirichlet.fraction_intervals(alpha, GROUPS), (0.05, 0.95), strict=True):
        # the stated tolerance is on the fraction: the target lies between the CDFs on both sides of the edge
        assert (mixture_cdf(alpha, np.clip(edge - 1e-6, 0, 1)) <= target + 1e-12).all()
        assert (mixture_cdf(alpha, np.clip(edge + 1e-6, 0, 1)) >= target - 1e-12).all()


def test_equal_samples_are_one_sample():
    alpha = np.repeat(made_up(samples=1), 4, axis=1)
    single, repeated = (dirichlet.fraction_intervals(each, GROUPS) for each in (alpha[:, 0], alpha))
    np.testing.assert_allclose(single, repeated, atol=1e-6)


def test_interval_is_of_the_mixture_and_not_an_average_of_edges():
    alpha = np.array([[[900.0, 100.0], [100.0, 900.0]]])  # two samples, each sure, that contradict each other
    lower, upper = dirichlet.fraction_intervals(alpha, [(0, 1)])
    assert (lower < 0.12).all()
    assert (upper > 0.88).all()


def test_two_answers_mirror_each_other():
    lower, upper = dirichlet.fraction_intervals(made_up(), GROUPS)
    np.testing.assert_allclose(lower[:, 3], 1 - upper[:, 4], atol=2e-6)
    np.testing.assert_allclose(upper[:, 3], 1 - lower[:, 4], atol=2e-6)


def test_order_of_samples_and_size_of_chunks_do_not_matter(monkeypatch):
    alpha = made_up()
    expected = dirichlet.fraction_intervals(alpha, GROUPS)
    np.testing.assert_allclose(dirichlet.fraction_intervals(alpha[:, ::-1], GROUPS), expected, atol=2e-6)
    monkeypatch.setattr(dirichlet, "_CHUNK_VALUES", 350)
    np.testing.assert_allclose(dirichlet.fraction_intervals(alpha, GROUPS), expected, atol=2e-6)


def test_intervals_agree_with_sampling():
    alpha = made_up(galaxies=1, highest=20)
    rng = np.random.default_rng(1)
    draws = np.concatenate([rng.dirichlet(sample[5:], size=40_000) for sample in alpha[0]])
    lower, upper = dirichlet.fraction_intervals(alpha, GROUPS)
    np.testing.assert_allclose(np.quantile(draws, 0.05, axis=0), lower[0, 5:], atol=5e-3)
    np.testing.assert_allclose(np.quantile(draws, 0.95, axis=0), upper[0, 5:], atol=5e-3)


def test_no_galaxies():
    lower, upper = dirichlet.fraction_intervals(np.ones((0, 3, 10)), GROUPS)
    assert lower.shape == upper.shape == (0, 10)
    assert dirichlet.log_predictive(np.ones((0, 10)), np.ones((0, 10)), GROUPS).shape == (0, 3)


def test_log_predictive_equals_scipy():
    alpha = made_up()
    votes = np.random.default_rng(2).integers(0, 30, (60, 10))
    result = dirichlet.log_predictive(votes, alpha, GROUPS)
    for question, (first, last) in enumerate(GROUPS):
        k = votes[:, None, first : last + 1]
        each = stats.dirichlet_multinomial.logpmf(k, alpha[..., first : last + 1], k.sum(axis=-1))
        expected = special.logsumexp(each, axis=1) - np.log(5)
        np.testing.assert_allclose(result[:, question], expected, rtol=1e-10)


def test_log_predictive_sums_to_one():
    every = np.array([k for k in itertools.product(range(5), repeat=3) if sum(k) == 4])
    alpha = np.repeat(made_up(galaxies=1)[:, :, :3], len(every), axis=0)
    assert np.exp(dirichlet.log_predictive(every, alpha, [(0, 2)])).sum() == pytest.approx(1, abs=1e-12)


def test_log_predictive_is_exactly_zero_without_votes():
    votes = np.ones((60, 10))
    votes[:, 3:5] = 0
    result = dirichlet.log_predictive(votes, made_up(), GROUPS)
    assert (result[:, 1] == 0).all()
    assert (result[:, [0, 2]] < 0).all()


def test_log_predictive_of_the_most_improbable_votes_is_finite():
    alpha, votes = np.full((1, 2, 10), 1e-3), np.zeros((1, 10))
    votes[:, :3] = 1e5
    assert np.isfinite(dirichlet.log_predictive(votes, alpha * 1e7, GROUPS)).all()
    assert np.isfinite(dirichlet.log_predictive(votes, alpha, GROUPS)).all()


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_concentrations_that_cannot_be(value):
    alpha = made_up()
    alpha[3, 2, 1] = value
    for function in (dirichlet.expected_fractions, dirichlet.fraction_intervals):
        with pytest.raises(SettingError, match="concentrations"):
            function(alpha, GROUPS)


def test_bad_input_names_the_argument():
    alpha = made_up()
    with pytest.raises(SettingError, match=r"concentrations: got shape \(60, 5, 9\)"):
        dirichlet.expected_fractions(alpha[..., 1:], GROUPS)
    with pytest.raises(SettingError, match="credibility"):
        dirichlet.fraction_intervals(alpha, GROUPS, credibility=90)
    with pytest.raises(SettingError, match="question_index_groups"):
        dirichlet.fraction_intervals(alpha, [(0, 8), (9, 9)])
    with pytest.raises(SettingError, match=r"votes: got shape \(10,\)"):
        dirichlet.log_predictive(np.ones(10), alpha, GROUPS)
    with pytest.raises(SettingError, match="votes: got a negative"):
        dirichlet.log_predictive(-np.ones((60, 10)), alpha, GROUPS)
