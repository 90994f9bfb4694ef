"""Laws of the votes to come: against scipy, by adding up, by simulation."""

import itertools

import numpy as np
import pytest
from scipy import special, stats

from zoobot.errors import SettingError
from zoobot.stats import concentrations, predictive

GROUPS = [(0, 2), (3, 4), (5, 9)]
SIZES = [3, 2, 5]


def made_up(galaxies=60, samples=5, lowest=1.0, highest=101.0, seed=0):
    rng = np.random.default_rng(seed)
    return lowest * (highest / lowest) ** rng.random((galaxies, samples, 10))


def made_up_totals(galaxies=60, highest=40):
    return np.random.default_rng(1).integers(0, highest + 1, (galaxies, 3))


def rest_of_question(alpha):
    totals = np.add.reduceat(alpha, [first for first, _ in GROUPS], axis=-1)
    return np.repeat(totals, SIZES, axis=-1) - alpha


def test_log_predictive_equals_scipy():
    alpha = made_up()
    votes = np.random.default_rng(2).integers(0, 30, (60, 10))
    result = predictive.log_predictive(votes, alpha, GROUPS)
    for question, (first, last) in enumerate(GROUPS):
        k = votes[:, None, first : last + 1]
        each = stats.dirichlet_multinomial.logpmf(k, alpha[..., first : last + 1], k.sum(axis=-1))
        expected = special.logsumexp(each, axis=1) - np.log(5)
        np.testing.assert_allclose(result[:, question], expected, rtol=1e-10)


def test_log_predictive_sums_to_one():
    every = np.array([k for k in itertools.product(range(5), repeat=3) if sum(k) == 4])
    alpha = np.repeat(made_up(galaxies=1)[:, :, :3], len(every), axis=0)
    assert np.exp(predictive.log_predictive(every, alpha, [(0, 2)])).sum() == pytest.approx(1, abs=1e-12)


def test_log_predictive_is_exactly_zero_without_votes():
    votes = np.ones((60, 10))
    votes[:, 3:5] = 0
    result = predictive.log_predictive(votes, made_up(), GROUPS)
    assert (result[:, 1] == 0).all()
    assert (result[:, [0, 2]] < 0).all()


def test_log_predictive_of_the_most_improbable_votes_is_finite():
    alpha, votes = np.full((1, 2, 10), 1e-3), np.zeros((1, 10))
    votes[:, :3] = 1e5
    assert np.isfinite(predictive.log_predictive(votes, alpha * 1e7, GROUPS)).all()
    assert np.isfinite(predictive.log_predictive(votes, alpha, GROUPS)).all()


def test_count_probabilities_are_the_mixed_beta_binomials_of_scipy():
    alpha, totals = made_up(lowest=0.01, highest=1e4), made_up_totals()
    probabilities = predictive.vote_probabilities(totals, alpha, GROUPS)
    assert probabilities.shape == (60, 10, 41)
    each = np.repeat(totals, SIZES, axis=1)[:, None, :, None]
    expected = stats.betabinom.pmf(np.arange(41), each, alpha[..., None], rest_of_question(alpha)[..., None])
    np.testing.assert_allclose(probabilities, expected.mean(axis=1), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-10)


def test_one_vote_has_the_expected_fractions():
    alpha = made_up()
    probabilities = predictive.vote_probabilities(1, alpha, GROUPS)
    np.testing.assert_allclose(probabilities[..., 1], predictive.expected_votes(1, alpha, GROUPS), rtol=1e-12)


def test_expected_votes_are_the_mean_of_the_probabilities():
    alpha, totals = made_up(), made_up_totals()
    probabilities = predictive.vote_probabilities(totals, alpha, GROUPS)
    mean = (probabilities * np.arange(41)).sum(axis=-1)
    np.testing.assert_allclose(predictive.expected_votes(totals, alpha, GROUPS), mean, rtol=1e-10)


def test_probabilities_do_not_vanish_with_thousands_of_votes():
    probabilities = predictive.vote_probabilities(5000, [[900.0, 1.0]], [(0, 1)])[0, 0]
    assert probabilities.sum() == pytest.approx(1)


def test_cdf_adds_up_the_probabilities():
    alpha, totals = made_up(), made_up_totals()
    sums = predictive.vote_probabilities(totals, alpha, GROUPS).cumsum(axis=-1)
    counts = np.random.default_rng(2).integers(0, 41, (60, 10))
    expected = np.take_along_axis(sums, counts[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(predictive.vote_cdf(counts, totals, alpha, GROUPS), expected, atol=1e-12)
    assert (predictive.vote_cdf(-1, totals, alpha, GROUPS) == 0).all()
    np.testing.assert_allclose(predictive.vote_cdf(99, totals, alpha, GROUPS), 1)


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 0.95, 1.0])
def test_quantile_is_the_smallest_number_that_suffices(probability):
    alpha, totals = made_up(), made_up_totals()
    smallest = predictive.vote_quantiles(probability, totals, alpha, GROUPS)
    assert (smallest >= 0).all()
    assert (smallest <= np.repeat(totals, SIZES, axis=1)).all()
    assert (predictive.vote_cdf(smallest, totals, alpha, GROUPS) >= probability - 1e-11).all()
    below = predictive.vote_cdf(smallest - 1, totals, alpha, GROUPS)
    assert (below[smallest > 0] < probability).all()


def test_intervals_hold_at_least_their_credibility_of_simulated_votes():
    rng = np.random.default_rng(5)
    alpha = np.repeat(made_up(galaxies=1, samples=2), 20_000, axis=0)
    lowest, highest = predictive.vote_intervals(30, alpha[:1], GROUPS)
    sample = rng.integers(2, size=20_000)
    first, second = alpha[np.arange(20_000), sample], rest_of_question(alpha)[np.arange(20_000), sample]
    votes = rng.binomial(30, rng.beta(first, second))
    inside = ((votes >= lowest) & (votes <= highest)).mean(axis=0)
    assert (inside > 0.89).all()
    one_less = ((votes > lowest) & (votes < highest)).mean(axis=0)
    assert (one_less < 0.9).all()


@pytest.mark.parametrize("answers", [2, 3])
def test_surprise_adds_up_all_that_is_no_more_probable_or_draws_it_within_its_error(answers, monkeypatch):
    rng = np.random.default_rng(4)
    every = np.array([k for k in itertools.product(range(13), repeat=answers) if sum(k) == 12], dtype=float)
    alpha, groups = np.repeat(rng.uniform(1, 9, (1, 2, answers)), len(every), axis=0), [(0, answers - 1)]
    p = np.exp(predictive.log_predictive(every, alpha, groups))[:, 0]
    expected = np.array([p[p <= each * (1 + 1e-9)].sum() for each in p]).clip(max=1)
    result = predictive.surprise(every, alpha, groups)[:, 0]
    np.testing.assert_allclose(result, expected, rtol=1e-9)
    monkeypatch.setattr(predictive, "_CHEAPER", 0)
    drawn = predictive.surprise(every, alpha, groups, draws=2000)[:, 0]
    assert (drawn != result).any()
    assert (drawn >= 1 / 2001).all()
    assert (np.abs(drawn - expected) <= 4 * np.sqrt(expected * (1 - expected) / 2000) + 1 / 2000).all()


@pytest.mark.parametrize(("total", "answers"), [(1, 1), (7, 1), (1, 4), (5, 2), (4, 3), (3, 5)])
def test_all_possible_votes_are_each_listed_once(total, answers):
    listed = predictive._list_votes(total, answers)
    every = [k for k in itertools.product(range(total + 1), repeat=answers) if sum(k) == total]
    assert sorted(map(tuple, listed.tolist())) == every


def test_votes_as_probable_as_each_other_surprise_alike():
    votes = [[9.0, 1.0], [1.0, 9.0]]
    result = predictive.surprise(votes, np.full((2, 1, 2), 5000.0), [(0, 1)], draws=20_000)
    expected = 2 * stats.binom.cdf(1, 10, 0.5)  # fractions are one half, nearly
    np.testing.assert_allclose(result[:, 0], expected, atol=4e-3)


@pytest.mark.parametrize("draws", [99, 1000])  # some votes are drawn, or all are added up
def test_surprise_of_votes_from_the_posterior_itself_is_rarely_small(draws):
    rng = np.random.default_rng(6)
    alpha = made_up(galaxies=500, samples=1, highest=20)
    votes = np.array(
        [
            [k for first, last in GROUPS for k in rng.multinomial(12, rng.dirichlet(a[first : last + 1]))]
            for a in alpha[:, 0]
        ]
    )
    result = predictive.surprise(votes, alpha, GROUPS, draws=draws)
    for limit in (0.01, 0.05, 0.2, 0.5):
        error = np.sqrt(limit * (1 - limit) / result.size)
        assert (result <= limit).mean() <= limit + 3 * error
    assert (result <= 0.2).mean() > 0.15


def test_surprise_does_not_depend_on_chunks_and_is_one_without_votes(monkeypatch):
    alpha = made_up(galaxies=10)
    votes = np.random.default_rng(7).integers(0, 9, (10, 10))
    votes[:, 3:5] = 0
    expected = predictive.surprise(votes, alpha, GROUPS, draws=50)
    assert (expected[:, 1] == 1).all()
    assert (expected[:, 0] > 0).all()
    assert (expected[:, 2] >= 1 / 51).all()
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 100)
    np.testing.assert_allclose(predictive.surprise(votes, alpha, GROUPS, draws=50), expected, rtol=1e-12)
    assert (predictive.surprise(votes, alpha, GROUPS, draws=50, seed=1) != expected).any()


def test_size_of_chunks_does_not_matter(monkeypatch):
    alpha, totals = made_up(), made_up_totals()
    votes = np.random.default_rng(8).integers(0, 9, (60, 10))

    def everything():
        return [
            predictive.log_predictive(votes, alpha, GROUPS),
            predictive.vote_probabilities(totals, alpha, GROUPS),
            predictive.vote_cdf(votes, totals, alpha, GROUPS),
            *predictive.vote_intervals(totals, alpha, GROUPS),
        ]

    whole = everything()
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 350)
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_no_galaxies_and_no_votes():
    nobody = np.ones((0, 3, 10))
    assert predictive.log_predictive(np.ones((0, 10)), nobody, GROUPS).shape == (0, 3)
    assert predictive.vote_intervals(5, nobody, GROUPS)[0].shape == (0, 10)
    assert predictive.surprise(np.ones((0, 10)), nobody, GROUPS).shape == (0, 3)
    assert (predictive.vote_intervals(0, made_up(), GROUPS)[1] == 0).all()
    assert (predictive.vote_probabilities(0, made_up(), GROUPS) == 1).all()


def test_bad_input_names_the_argument():
    alpha = made_up()
    with pytest.raises(SettingError, match=r"votes: got shape \(10,\)"):
        predictive.log_predictive(np.ones(10), alpha, GROUPS)
    with pytest.raises(SettingError, match="votes: got a negative"):
        predictive.log_predictive(-np.ones((60, 10)), alpha, GROUPS)
    with pytest.raises(SettingError, match=r"votes: .* not whole"):
        predictive.surprise(np.full((60, 10), 0.5), alpha, GROUPS)
    with pytest.raises(SettingError, match="draws"):
        predictive.surprise(np.ones((60, 10)), alpha, GROUPS, draws=0)
    for totals in (-1, 2.5, np.nan):
        with pytest.raises(SettingError, match="totals: got a number"):
            predictive.expected_votes(totals, alpha, GROUPS)
    with pytest.raises(SettingError, match="totals: got shape"):
        predictive.vote_probabilities(np.ones(10), alpha, GROUPS)
    with pytest.raises(SettingError, match="counts: got shape"):
        predictive.vote_cdf(np.ones(3), 5, alpha, GROUPS)
    with pytest.raises(SettingError, match="counts: got a number"):
        predictive.vote_cdf(0.5, 5, alpha, GROUPS)
    with pytest.raises(SettingError, match="probabilities"):
        predictive.vote_quantiles([0.5, 1.5], 5, alpha, GROUPS)
    with pytest.raises(SettingError, match="credibility"):
        predictive.vote_intervals(5, alpha, GROUPS, 1)
    with pytest.raises(SettingError, match="question_index_groups"):
        predictive.vote_probabilities(5, alpha, [(0, 8), (9, 9)])
