"""Laws of mixtures of Betas, for thousands of random ones, and cases computed by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import stats

from zoobot.stats import beta_mixtures

MIXTURES = 40  # an example


def parameters():
    """Log-uniform from 0.01 to 10,000: (first or second, 1 to 8 components, mixtures)."""
    shapes = st.integers(1, 8).map(lambda components: (2, components, MIXTURES))
    exponents = st_numpy.arrays(np.float64, shapes, elements=st.floats(-2, 4), fill=st.nothing())
    return exponents.map(lambda exponent: 10**exponent)


def probabilities():
    return st_numpy.arrays(np.float64, MIXTURES, elements=st.floats(1e-6, 1 - 1e-6), fill=st.nothing())


def assert_holds(first, second, lower, upper, probability):
    """The interval holds the probability within 1e-6, or as nearly as float64 can be to where its edges are."""

    def held(away):
        edges = np.nextafter(lower, lower - away), np.nextafter(upper, upper + away)
        below, above = (beta_mixtures.cdf(first, second, edge.clip(0, 1)) for edge in edges)
        return above - below

    assert (held(1) >= probability - 1e-6).all()
    exact = (lower > 1e-300) & (upper < 1)  # else an edge is 0 or 1 itself
    assert (held(-1)[exact] <= probability + 1e-6).all()


def assert_are_quantiles(first, second, x, probability):
    """The CDF there is the probability within 1e-8, or x is the float64 next to where it is."""
    after = np.where(x == 0, 1e-303, np.nextafter(x, 1))
    assert (beta_mixtures.cdf(first, second, np.nextafter(x, 0)) <= probability + 1e-8).all()
    assert (beta_mixtures.cdf(first, second, after) >= probability - 1e-8).all()
    inside = (x > 0) & (x < 0.999)  # nearer to 1 float64 is too coarse for such small parameters
    np.testing.assert_allclose(beta_mixtures.cdf(first, second, x)[inside], probability[inside], atol=1e-6)


@hypothesis.settings(max_examples=100)
@hypothesis.given(parameters(), probabilities())
def test_cdf_of_the_quantile_is_the_probability(pair, probability):
    assert_are_quantiles(*pair, beta_mixtures.quantiles(*pair, probability), probability)


@pytest.mark.parametrize("components", [1, 2, 5, 8])
@pytest.mark.parametrize(("lowest", "highest"), [(0.01, 1e4), (1, 101), (0.01, 1), (1e3, 1e4)])
def test_cdf_of_the_quantile_is_the_probability_of_random_mixtures(components, lowest, highest):
    rng = np.random.default_rng(components)
    first, second = lowest * (highest / lowest) ** rng.random((2, components, 1000))
    probability = rng.permuted(np.concatenate([np.full(300, 0.05), np.full(300, 0.95), rng.random(400)]))
    assert_are_quantiles(first, second, beta_mixtures.quantiles(first, second, probability), probability)


@hypothesis.settings(max_examples=100)
@hypothesis.given(parameters(), probabilities())
def test_quantile_of_the_cdf_is_the_fraction_where_there_is_density(pair, x):
    first, second = pair
    below, density = beta_mixtures.cdf(first, second, x), beta_mixtures.density(first, second, x)
    there = (density > 0.1) & (below > 1e-6) & (below < 1 - 1e-6)
    found = beta_mixtures.quantiles(first, second, below)
    np.testing.assert_allclose(found[there], x[there], atol=1e-6)


@hypothesis.settings(max_examples=100)
@hypothesis.given(parameters(), st.sampled_from([0.5, 0.8, 0.9, 0.99]))
def test_equal_tailed_interval_holds_its_probability(pair, probability):
    first, second = pair
    tails = np.full((2, MIXTURES), 0.5) + np.array([[-0.5], [0.5]]) * probability
    lower, upper = (beta_mixtures.quantiles(first, second, tail) for tail in tails)
    assert_holds(first, second, lower, upper, probability)


@hypothesis.settings(max_examples=20)
@hypothesis.given(parameters(), st.sampled_from([0.5, 0.9]))
def test_shortest_interval_holds_its_probability_and_is_no_longer_than_the_equal_tailed(pair, probability):
    first, second = (each[:, :15] for each in pair)
    lower, upper = beta_mixtures.shortest_intervals(first, second, probability)
    assert_holds(first, second, lower, upper, probability)
    tails = (np.full(15, (1 - probability) / 2), np.full(15, (1 + probability) / 2))
    equal_lower, equal_upper = (beta_mixtures.quantiles(first, second, tail) for tail in tails)
    assert (upper - lower <= equal_upper - equal_lower + 1e-9).all()


@hypothesis.settings(max_examples=50)
@hypothesis.given(parameters(), probabilities())
def test_mirrored_mixtures_have_mirrored_quantiles(pair, probability):
    first, second = pair
    x = beta_mixtures.quantiles(first, second, probability)
    mirrored = beta_mixtures.quantiles(second, first, 1 - probability)
    there = beta_mixtures.density(first, second, x.clip(1e-9, 1 - 1e-9)) > 0.1
    np.testing.assert_allclose(mirrored[there], 1 - x[there], atol=1e-6)


def test_one_component_is_scipys_beta():
    first, second = 10 ** np.random.default_rng(0).uniform(-1, 4, (2, 1, 300))
    probability = np.random.default_rng(1).random(300)
    expected = stats.beta(first[0], second[0])
    x = beta_mixtures.quantiles(first, second, probability)
    np.testing.assert_allclose(x, expected.ppf(probability), atol=1e-12)
    np.testing.assert_allclose(beta_mixtures.density(first, second, np.full(300, 0.3)), expected.pdf(0.3), rtol=1e-7)
    np.testing.assert_allclose(beta_mixtures.cdf(first, second, np.full(300, 0.3)), expected.cdf(0.3), rtol=1e-9)


def test_quantiles_far_out_in_the_tails():
    first, second = np.full((2, 1, 1), 0.01), np.full((2, 1, 1), 0.01)
    x = beta_mixtures.quantiles(first[0], second[0], np.array([0.05]))
    assert x[0] == pytest.approx(stats.beta.ppf(0.05, 0.01, 0.01), rel=1e-6)
    assert x[0] < 1e-90
    ends = beta_mixtures.quantiles(np.ones((1, 2)), np.ones((1, 2)), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(ends, [0, 1])


def test_opposed_components_give_wide_intervals():
    first, second = np.array([[900.0], [100.0]]), np.array([[100.0], [900.0]])
    lower, upper = beta_mixtures.shortest_intervals(first, second, 0.9)
    assert lower < 0.12
    assert upper > 0.88


def test_shortest_interval_takes_the_narrow_mode():
    # three quarters of the probability within 0.9 ± 0.001, the rest anywhere
    first = np.array([[9e4], [9e4], [9e4], [1.0]])
    second = np.array([[1e4], [1e4], [1e4], [1.0]])
    lower, upper = beta_mixtures.shortest_intervals(first, second, 0.5)
    assert 0.895 < lower < upper < 0.905


@pytest.mark.parametrize("probability", [0.2, 0.4, 0.8])
def test_shortest_interval_is_the_shortest_of_all_tails(probability):
    # broad at one side, narrow at the other, in the middle, or at 0; each mirrored, too
    first = np.array([[2.0, 800.0, 400.0, 0.6, 30.0], [90.0, 3.0, 2.0, 3.0, 300.0], [80.0, 2.0, 500.0, 4.0, 2.0]])
    second = np.array([[9.0, 200.0, 400.0, 20.0, 1.0], [11.0, 9.0, 3.0, 2.0, 900.0], [12.0, 9.0, 510.0, 1.0, 90.0]])
    first, second = np.hstack([first, second]), np.hstack([second, first])
    lower, upper = beta_mixtures.shortest_intervals(first, second, probability)
    tails = np.linspace(0, 1 - probability, 301)
    every = [
        beta_mixtures.quantiles(first, second, np.full(10, tail + probability))
        - beta_mixtures.quantiles(first, second, np.full(10, tail))
        for tail in tails
    ]
    assert (upper - lower <= np.min(every, axis=0) + 1e-7).all()
    assert len(set(np.argmin(every, axis=0))) > 5  # not all near one tail
    held = beta_mixtures.cdf(first, second, upper) - beta_mixtures.cdf(first, second, lower)
    np.testing.assert_allclose(held, probability, atol=1e-8)


def test_shortest_interval_of_falling_and_rising_densities_begins_at_the_edge():
    first, second = np.array([[0.5, 3.0, 0.02]]), np.array([[3.0, 0.5, 50.0]])
    lower, upper = beta_mixtures.shortest_intervals(first, second, 0.9)
    np.testing.assert_array_equal([lower[0], upper[1], lower[2]], [0, 1, 0])
    assert upper[0] == pytest.approx(stats.beta.ppf(0.9, 0.5, 3.0))
    assert lower[1] == pytest.approx(stats.beta.ppf(0.1, 3.0, 0.5))


def test_absurd_parameters_end():
    first, second = np.array([[1e-300, 1e300, 1e300]]), np.array([[1e300, 1e-300, 1e300]])
    assert np.isfinite(beta_mixtures.quantiles(first, second, np.full(3, 0.3))).all()


def test_no_mixtures():
    nothing = np.ones((3, 0))
    assert beta_mixtures.quantiles(nothing, nothing, np.ones(0)).shape == (0,)
    assert beta_mixtures.shortest_intervals(nothing, nothing, 0.9)[0].shape == (0,)
