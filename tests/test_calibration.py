"""Calibration: a model that is the truth is calibrated whatever the votes, and one that is not is found out."""

import numpy as np
import pytest
from scipy import stats

from zoobot.errors import SettingError
from zoobot.stats.calibration import (
    Transform,
    coverage,
    measure_calibration,
    pit_histogram,
    transform_truth,
    transform_votes,
)

GROUPS = [(0, 2), (3, 4)]


@pytest.fixture(scope="module")
def survey():
    """Concentrations of two samples, fractions drawn from them, and one to four votes: as discrete as can be."""
    rng = np.random.default_rng(0)
    alpha = rng.lognormal(1, 0.8, (4000, 2, 5))
    drawn = rng.standard_gamma(alpha[np.arange(4000), rng.integers(2, size=4000)])
    fractions = np.concatenate([drawn[:, a : b + 1] / drawn[:, a : b + 1].sum(1, keepdims=True) for a, b in GROUPS], 1)
    votes = [rng.multinomial(rng.integers(0, 5, 4000), fractions[:, a : b + 1]) for a, b in GROUPS]
    return alpha, fractions, np.concatenate(votes, axis=1)


def test_steps_are_those_of_the_beta_binomial():
    alpha, votes = np.array([[[2.0, 3.0, 0.5], [9.0, 1.0, 4.0]]]), [[3, 0, 7]]
    found = transform_votes(votes, alpha, [(0, 2)])
    for answer, k in enumerate(votes[0]):
        a = alpha[0, :, answer]
        each = stats.betabinom(10, a, alpha[0].sum(axis=1) - a)
        assert found.lower[0, answer] == pytest.approx(each.cdf(k - 1).mean())
        assert found.upper[0, answer] == pytest.approx(each.cdf(k).mean())


def test_a_right_model_is_calibrated_with_few_votes(survey):
    alpha, _, votes = survey
    found = transform_votes(votes, alpha, GROUPS)
    for credibility in (0.5, 0.8, 0.9):
        measured = coverage(found, credibility)
        assert measured.value == pytest.approx(credibility, abs=4 * measured.standard_error)
        assert measured.standard_error < 0.005
    histogram = pit_histogram(found)
    assert (np.abs(histogram.density - 1) < 4 * histogram.standard_error).all()


def test_intervals_hold_the_truth_where_the_model_is_the_truth(survey):
    alpha, fractions, _ = survey
    assert coverage(transform_truth(fractions, alpha, GROUPS), 0.9).value == pytest.approx(0.9, abs=0.01)
    some = np.where(np.arange(4000)[:, None] % 2, fractions, np.nan)
    found = transform_truth(some, alpha, GROUPS)
    assert np.isnan(found.lower[::2]).all()
    assert pit_histogram(found).galaxies == 2000


def test_spreading_a_count_over_its_step_is_the_mean_of_drawing_within_it(survey):
    alpha, _, votes = survey
    asked = (votes[:, :3].any(axis=1) & votes[:, 3:].any(axis=1)).nonzero()[0][:300]
    found = transform_votes(votes[asked], alpha[asked], GROUPS)
    drawn = np.random.default_rng(0).uniform(found.lower, found.upper, (1000, *found.lower.shape))
    inside = (drawn > 0.1) & (drawn < 0.9)
    assert coverage(found, 0.8).value == pytest.approx(inside.mean(), abs=0.002)


def test_too_sure_makes_a_u_and_too_unsure_a_hump(survey):
    alpha, fractions, _ = survey
    ends = [pit_histogram(transform_truth(fractions, alpha * wrong, GROUPS)).density[[0, -1]] for wrong in (4, 0.25)]
    assert (ends[0] > 1.5).all()
    assert (ends[1] < 0.6).all()


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_a_histogram_has_area_one(survey, bins):
    alpha, fractions, votes = survey
    for found in (transform_votes(votes, alpha, GROUPS), transform_truth(fractions, alpha, GROUPS)):
        assert pit_histogram(found, bins).density.mean() == pytest.approx(1)


def test_answers_that_cannot_be_missed_are_inside():
    ends = Transform(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]]))
    assert pit_histogram(ends, 2).density.tolist() == [1, 1]
    assert coverage(Transform(np.zeros((1, 2)), np.ones((1, 2)))).value == pytest.approx(0.9)


def test_errors_take_galaxies_together():
    below = np.array([[0.5], [0.5], [0.01], [0.5]])
    one, many = (coverage(Transform(np.repeat(below, n, axis=1), np.repeat(below, n, axis=1))) for n in (1, 9))
    assert one == many
    assert one.value == 0.75
    assert one.standard_error == pytest.approx(0.25)


def test_calibration_error_and_the_scatter_that_it_says_it_has():
    rng = np.random.default_rng(0)
    alpha, found = np.repeat([[9.0, 1.0]], 300, axis=0), []
    for _ in range(60):
        votes = rng.multinomial(10, rng.dirichlet([7, 3], 300))
        found.append(measure_calibration(votes, alpha, [(0, 1)])[1].calibration_error)
    values, errors = np.array([(each.value, each.standard_error) for each in found]).T
    assert values.mean() == pytest.approx(0.2, abs=0.005)
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)


def test_the_calibration_error_of_all_questions_takes_galaxies_together(survey):
    alpha, _, votes = survey
    once, _ = measure_calibration(votes[:, :3], alpha[..., :3], GROUPS[:1])
    _, twice = measure_calibration(np.tile(votes[:, :3], 2), np.tile(alpha[..., :3], 2), [(0, 2), (3, 5)])
    assert twice.calibration_error == once[0].calibration_error


def test_questions_and_all(survey):
    alpha, _, votes = survey
    questions, overall = measure_calibration(votes, alpha, GROUPS)
    asked = np.stack([votes[:, :3].any(axis=1), votes[:, 3:].any(axis=1)], axis=1)
    assert [each.galaxies for each in questions] == asked.sum(axis=0).tolist()
    assert overall.galaxies == asked.any(axis=1).sum()
    total = sum(each.loss.value * each.galaxies for each in questions)
    assert overall.loss.value == pytest.approx(total / overall.galaxies)
    for name in ("deviation", "width"):
        mean = np.average([getattr(each, name).value for each in questions], weights=asked.sum(axis=0))
        assert getattr(overall, name).value == pytest.approx(mean)
    wider, _ = measure_calibration(votes, alpha / 3, GROUPS)
    assert wider[0].width.value > questions[0].width.value


def test_a_question_without_votes_has_nothing_to_tell():
    questions, overall = measure_calibration([[0, 0, 0, 1, 2]], np.ones((1, 5)), GROUPS)
    assert questions[0].galaxies == 0
    assert np.isnan(questions[0].loss.value)
    assert np.isnan(questions[0].coverages[0].value)
    assert overall.loss.value == questions[1].loss.value
    _, none = measure_calibration(np.zeros((2, 5)), np.ones((2, 5)), GROUPS)
    assert none.galaxies == 0
    assert np.isnan(none.calibration_error.value)


def test_bad_input_is_refused():
    with pytest.raises(SettingError, match="not whole"):
        transform_votes([[0.5, 1]], [[1.0, 1.0]], [(0, 1)])
    with pytest.raises(SettingError, match="credibility"):
        measure_calibration([[1, 1]], [[1.0, 1.0]], [(0, 1)], credibilities=(90.0,))
    with pytest.raises(SettingError, match="bins"):
        pit_histogram(Transform(np.zeros((1, 1)), np.ones((1, 1))), 0)
