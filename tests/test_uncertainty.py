"""Laws of leading answers, entropies and information: closed forms against integrals, sums and simulation."""

import numpy as np
import pytest
from scipy import integrate, stats

from zoobot.errors import SettingError
from zoobot.stats import concentrations, dirichlet, uncertainty

GROUPS = [(0, 2), (3, 4), (5, 9)]


def made_up(galaxies=60, samples=5, lowest=1.0, highest=101.0, seed=0):
    rng = np.random.default_rng(seed)
    return lowest * (highest / lowest) ** rng.random((galaxies, samples, 10))


def sums(values):
    return np.add.reduceat(values, [first for first, _ in GROUPS], axis=-1)


@pytest.mark.parametrize(("lowest", "highest"), [(1, 101), (0.01, 1e4), (0.001, 0.1), (1e3, 1e6)])
def test_chances_to_lead_sum_to_one_and_are_symmetric(lowest, highest):
    alpha = made_up(lowest=lowest, highest=highest)
    leads = uncertainty.probability_leads(alpha, GROUPS)
    np.testing.assert_allclose(sums(leads), 1, rtol=1e-12)
    assert (leads >= 0).all()
    alike = uncertainty.probability_leads(np.repeat(alpha[..., :1], 10, axis=-1), GROUPS)
    np.testing.assert_allclose(alike, np.repeat([1 / 3, 1 / 2, 1 / 5], [3, 2, 5])[None].repeat(60, axis=0))


@pytest.mark.parametrize(("lowest", "highest"), [(1, 101), (0.01, 1e4), (0.001, 0.1), (1e3, 1e6)])
def test_quadrature_agrees_with_the_closed_form_of_two_answers(lowest, highest):
    alpha = made_up(lowest=lowest, highest=highest)[..., 3:5]
    closed = uncertainty.probability_leads(alpha, [(0, 1)])
    # a third answer that never leads
    quadrature = uncertainty.probability_leads(np.insert(alpha, 2, 1e-9, axis=-1), [(0, 2)])
    np.testing.assert_allclose(quadrature[:, :2], closed, atol=1e-6)


def test_chances_to_lead_agree_with_integration():
    for alpha in ([3.0, 5.0, 4.0, 0.7], [0.05, 0.02, 0.3, 0.1], [900.0, 1000.0, 950.0, 2.0]):
        gammas = [stats.gamma(each) for each in alpha]

        def integrand(log_x, leading, gammas=gammas):
            x = np.exp(log_x)
            others = np.prod([each.cdf(x) for number, each in enumerate(gammas) if number != leading], axis=0)
            return gammas[leading].pdf(x) * x * others

        leads = uncertainty.probability_leads([alpha], [(0, 3)])[0]
        for leading in range(4):
            pieces = [(-200, -20), (-20, 0), (0, 6.5), (6.5, 6.9), (6.9, 7.5)]
            expected = sum(integrate.quad(integrand, *piece, args=(leading,), limit=200)[0] for piece in pieces)
            assert leads[leading] == pytest.approx(expected, abs=1e-6)


def test_chances_to_lead_agree_with_sampling():
    alpha = made_up(galaxies=1, samples=2, highest=10)
    rng = np.random.default_rng(2)
    leads = uncertainty.probability_leads(alpha, GROUPS)[0]
    for first, last in GROUPS:
        draws = np.concatenate([rng.dirichlet(each[first : last + 1], size=100_000) for each in alpha[0]])
        counts = np.bincount(draws.argmax(axis=1), minlength=last - first + 1)
        np.testing.assert_allclose(counts / len(draws), leads[first : last + 1], atol=6e-3)


def test_leading_is_mixed_over_samples():
    leads = uncertainty.probability_leads([[[900.0, 100.0], [100.0, 900.0]]], [(0, 1)])
    np.testing.assert_allclose(leads, 0.5)


def test_only_answer_leads():
    assert uncertainty.probability_leads([[2.0, 1.0, 1.0]], [(0, 0), (1, 2)])[0, 0] == 1


def test_entropies_of_dirichlets_are_those_of_scipy():
    alpha = made_up(samples=2, lowest=0.1)
    entropies = uncertainty.dirichlet_entropies(alpha, GROUPS)
    assert entropies.shape == (60, 2, 3)
    for galaxy in range(10):
        for question, (first, last) in enumerate(GROUPS):
            expected = stats.dirichlet(alpha[galaxy, 1, first : last + 1]).entropy()
            assert entropies[galaxy, 1, question] == pytest.approx(expected, rel=1e-9)


def test_parts_of_the_next_vote_add_up():
    parts = uncertainty.next_vote_uncertainty(made_up(lowest=0.01, highest=1e4), GROUPS)
    total = parts.between_samples + parts.within_samples + parts.volunteers
    np.testing.assert_allclose(total, parts.entropy, atol=1e-9)
    for part in (parts.between_samples, parts.within_samples, parts.volunteers):
        assert (part >= 0).all()
    assert (parts.entropy <= np.log([3, 2, 5]) + 1e-12).all()
    assert (parts.between_samples <= np.log(5)).all()


def test_volunteers_part_is_the_mean_entropy_of_the_fractions():
    alpha = made_up(galaxies=1, samples=2, lowest=0.3, highest=10)
    rng = np.random.default_rng(3)
    parts = uncertainty.next_vote_uncertainty(alpha, GROUPS)
    for question, (first, last) in enumerate(GROUPS):
        draws = np.concatenate([rng.dirichlet(each[first : last + 1], size=50_000) for each in alpha[0]])
        entropy = stats.entropy(draws, axis=1).mean()
        assert parts.volunteers[0, question] == pytest.approx(entropy, abs=0.01)


def test_equal_samples_tell_nothing_of_each_other():
    alpha = np.repeat(made_up(samples=1), 4, axis=1)
    parts = uncertainty.next_vote_uncertainty(alpha, GROUPS)
    np.testing.assert_allclose(parts.between_samples, 0, atol=1e-12)
    assert (parts.within_samples > 1e-4).all()
    np.testing.assert_allclose(uncertainty.count_information(20, alpha, GROUPS), 0, atol=1e-12)


def test_surely_opposed_samples_are_told_apart_by_one_vote():
    alpha = [[[1e9, 1e-3], [1e-3, 1e9]]]
    parts = uncertainty.next_vote_uncertainty(alpha, [(0, 1)])
    assert parts.between_samples[0, 0] == pytest.approx(np.log(2))
    assert parts.within_samples[0, 0] == pytest.approx(0, abs=1e-9)


def test_information_of_one_vote_of_two_answers_is_that_between_samples():
    alpha = made_up()
    between = uncertainty.next_vote_uncertainty(alpha, GROUPS).between_samples
    information = uncertainty.count_information(1, alpha, GROUPS)
    np.testing.assert_allclose(information[:, 3], between[:, 1], atol=1e-12)
    np.testing.assert_allclose(information[:, 4], between[:, 1], atol=1e-12)


def test_information_grows_with_votes_up_to_the_log_of_samples():
    alpha = made_up(samples=3)
    each = [uncertainty.count_information(totals, alpha, GROUPS) for totals in (0, 1, 5, 40)]
    assert (each[0] == 0).all()
    assert (np.diff(each, axis=0) > -1e-12).all()
    assert (each[-1] <= np.log(3)).all()


def test_size_of_chunks_does_not_matter(monkeypatch):
    alpha = made_up()
    functions = (uncertainty.probability_leads, lambda *both: uncertainty.count_information(7, *both))
    expected = [function(alpha, GROUPS) for function in functions]
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 500)
    for one, function in zip(expected, functions, strict=True):
        np.testing.assert_allclose(function(alpha, GROUPS), one, rtol=1e-12)


def test_leading_of_two_answers_is_to_exceed_one_half():
    alpha = made_up()
    above = dirichlet.probability_above(0.5, alpha, GROUPS)
    np.testing.assert_allclose(uncertainty.probability_leads(alpha, GROUPS)[:, 3:5], above[:, 3:5], rtol=1e-9)


def test_no_galaxies_and_bad_input():
    nobody = np.ones((0, 3, 10))
    assert uncertainty.probability_leads(nobody, GROUPS).shape == (0, 10)
    assert uncertainty.next_vote_uncertainty(nobody, GROUPS).entropy.shape == (0, 3)
    with pytest.raises(SettingError, match="concentrations"):
        uncertainty.probability_leads(-np.ones((1, 10)), GROUPS)
    with pytest.raises(SettingError, match="totals"):
        uncertainty.count_information(0.5, made_up(), GROUPS)
