"""Laws of the moments, marginal distributions and intervals of fractions."""

import numpy as np
import pytest
from scipy import special, stats

from zoobot.errors import SettingError
from zoobot.stats import concentrations, dirichlet

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
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 350)
    np.testing.assert_allclose(dirichlet.fraction_intervals(alpha, GROUPS), expected, atol=2e-6)


def test_intervals_agree_with_sampling():
    alpha = made_up(galaxies=1, highest=20)
    rng = np.random.default_rng(1)
    draws = np.concatenate([rng.dirichlet(sample[5:], size=40_000) for sample in alpha[0]])
    lower, upper = dirichlet.fraction_intervals(alpha, GROUPS)
    np.testing.assert_allclose(np.quantile(draws, 0.05, axis=0), lower[0, 5:], atol=5e-3)
    np.testing.assert_allclose(np.quantile(draws, 0.95, axis=0), upper[0, 5:], atol=5e-3)


def test_moments_of_one_sample_are_those_of_scipy():
    alpha = made_up(samples=1)
    variances = dirichlet.fraction_variances(alpha, GROUPS)
    covariances = dirichlet.fraction_covariances(alpha, GROUPS)
    for first, last in GROUPS:
        question = slice(first, last + 1)
        for galaxy in range(5):
            expected = stats.dirichlet(alpha[galaxy, 0, question])
            np.testing.assert_allclose(variances[galaxy, question], expected.var(), rtol=1e-12)
            np.testing.assert_allclose(covariances[galaxy, question, question], expected.cov(), rtol=1e-10)
            covariances[galaxy, question, question] = 0
    assert np.abs(covariances[:5]).max() < 1e-17  # questions are independent


def test_moments_of_two_samples_by_hand():
    alpha = np.array([[[900.0, 100.0, 2.0, 2.0], [100.0, 900.0, 1.0, 3.0]]])
    groups = [(0, 1), (2, 3)]
    # means 0.9 and 0.1, 0.5 and 0.25
    covariances = dirichlet.fraction_covariances(alpha, groups)[0]
    assert covariances[0, 0] == pytest.approx(0.09 / 1001 + 0.16)
    assert covariances[0, 1] == pytest.approx(-0.09 / 1001 - 0.16)
    assert covariances[2, 2] == pytest.approx((0.25 + 0.1875) / 2 / 5 + 0.125**2)
    assert covariances[0, 2] == pytest.approx(0.4 * 0.125)  # only disagreement of samples links questions


def test_moments_agree_with_sampling():
    alpha = made_up(galaxies=1, samples=3, lowest=0.3, highest=30)
    rng = np.random.default_rng(3)
    draws = [
        np.concatenate([rng.dirichlet(sample[first : last + 1], size=100_000) for first, last in GROUPS], axis=1)
        for sample in alpha[0]
    ]
    covariances = dirichlet.fraction_covariances(alpha, GROUPS)[0]
    np.testing.assert_allclose(np.cov(np.concatenate(draws).T), covariances, atol=1e-3)


def test_covariances_are_a_covariance_matrix():
    alpha = made_up(lowest=0.01, highest=1e4)
    covariances = dirichlet.fraction_covariances(alpha, GROUPS)
    np.testing.assert_allclose(np.einsum("gii->gi", covariances), dirichlet.fraction_variances(alpha, GROUPS))
    np.testing.assert_allclose(covariances, covariances.swapaxes(1, 2), atol=1e-15)
    np.testing.assert_allclose(covariances[:, :3].sum(axis=1), 0, atol=1e-15)  # fractions of a question sum to 1
    assert np.linalg.eigvalsh(covariances).min() > -1e-14


def test_density_is_the_slope_of_the_cdf_and_the_mixture_of_scipy():
    alpha = made_up()
    x = np.array([0.1, 0.5, 0.8])[:, None, None]
    density = dirichlet.fraction_density(x, alpha, GROUPS)
    assert density.shape == (3, 60, 10)
    expected = stats.beta.pdf(x[:, None], alpha.swapaxes(0, 1), rest_of_question(alpha).swapaxes(0, 1)).mean(axis=1)
    np.testing.assert_allclose(density, expected, rtol=1e-9, atol=1e-100)
    cdf = [dirichlet.fraction_cdf(x + step, alpha, GROUPS) for step in (-1e-5, 1e-5)]
    np.testing.assert_allclose((cdf[1] - cdf[0]) / 2e-5, density, rtol=1e-4, atol=1e-5)


def test_quantiles_invert_the_cdf_at_any_shape_of_probabilities():
    alpha = made_up()
    each = np.random.default_rng(4).random((60, 10))
    quantiles = dirichlet.fraction_quantiles(each, alpha, GROUPS)
    np.testing.assert_allclose(dirichlet.fraction_cdf(quantiles, alpha, GROUPS), each, atol=1e-8)
    levels = dirichlet.fraction_quantiles([[[0.05]], [[0.95]]], alpha, GROUPS)
    np.testing.assert_allclose(levels, dirichlet.fraction_intervals(alpha, GROUPS), rtol=1e-12)
    row = dirichlet.fraction_quantiles(each[0], alpha, GROUPS)
    np.testing.assert_allclose(row[0], quantiles[0], atol=1e-12)
    np.testing.assert_array_equal(dirichlet.fraction_quantiles([[[0]], [[1]]], alpha, GROUPS)[:, 0, 0], [0, 1])


def test_probability_above_keeps_its_digits():
    alpha = made_up(samples=1, highest=1e4)
    above = dirichlet.probability_above(0.99, alpha, GROUPS)
    expected = stats.beta.sf(0.99, alpha, rest_of_question(alpha))[:, 0]
    assert (expected < 1e-50).any()
    np.testing.assert_allclose(above, expected, rtol=1e-8, atol=1e-300)
    np.testing.assert_allclose(above, 1 - dirichlet.fraction_cdf(0.99, alpha, GROUPS), atol=1e-12)


@pytest.mark.parametrize("credibility", [0.5, 0.9])
def test_highest_density_intervals_of_one_mode_end_at_the_same_density(credibility):
    alpha = made_up(samples=1, lowest=2)
    lower, upper = dirichlet.highest_density_intervals(alpha, GROUPS, credibility)
    np.testing.assert_allclose(mixture_cdf(alpha, upper) - mixture_cdf(alpha, lower), credibility, atol=1e-8)
    levels = [dirichlet.fraction_density(edge, alpha, GROUPS) for edge in (lower, upper)]
    np.testing.assert_allclose(*levels, rtol=2e-3)
    equal_lower, equal_upper = dirichlet.fraction_intervals(alpha, GROUPS, credibility)
    assert (upper - lower <= equal_upper - equal_lower).all()


def test_no_galaxies():
    for function in (dirichlet.fraction_intervals, dirichlet.highest_density_intervals):
        lower, upper = function(np.ones((0, 3, 10)), GROUPS)
        assert lower.shape == upper.shape == (0, 10)
    assert dirichlet.fraction_covariances(np.ones((0, 3, 10)), GROUPS).shape == (0, 10, 10)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_concentrations_that_cannot_be(value):
    alpha = made_up()
    alpha[3, 2, 1] = value
    for function in (
        dirichlet.expected_fractions,
        dirichlet.fraction_covariances,
        dirichlet.fraction_intervals,
        dirichlet.highest_density_intervals,
    ):
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
    for shape in [(9,), (59, 10), (3, 60, 9)]:
        with pytest.raises(SettingError, match=r"x: got shape"):
            dirichlet.fraction_cdf(np.full(shape, 0.5), alpha, GROUPS)
    for function, name in [
        (dirichlet.fraction_density, "x"),
        (dirichlet.fraction_quantiles, "probabilities"),
        (dirichlet.probability_above, "threshold"),
    ]:
        for value in (1.1, -0.1, np.nan):
            with pytest.raises(SettingError, match=name):
                function(value, alpha, GROUPS)
