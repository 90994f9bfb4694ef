"""What the functions of concentrations share: the answers' Betas and the work in chunks."""

import threading

import numpy as np
import pytest
from scipy import stats

from zoobot.errors import SettingError
from zoobot.stats import concentrations


def test_betas_of_answers_keep_small_concentrations_beside_large_ones():
    alpha = np.array([[[1e20, 3.0, 1.0, 1e-9, 2.0]]])
    first, second = concentrations.answer_betas(alpha, [(0, 2), (3, 4)])
    np.testing.assert_array_equal(first[0], alpha[0, 0])
    np.testing.assert_array_equal(second[0], [4, 1e20, 1e20, 2, 1e-9])  # a difference of totals would give 0 for 4


def test_betas_add_up_to_the_total():
    alpha = np.random.default_rng(0).random((7, 3, 8)) + 0.1
    groups = ((0, 4), (5, 7))
    first, second = concentrations.answer_betas(alpha, groups)
    assert first.shape == (3, 56)
    total = concentrations.spread_over_answers(concentrations.sum_questions(alpha, groups), groups)
    np.testing.assert_allclose(first + second, total.swapaxes(0, 1).reshape(3, 56))


@pytest.mark.parametrize("galaxies", [0, 1, 10, 1001])
def test_chunks_cover_every_galaxy_once(galaxies, monkeypatch):
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 40)
    seen, lock = np.zeros(galaxies, int), threading.Lock()

    def work(chunk):
        with lock:
            seen[chunk] += 1
            assert chunk.stop - chunk.start <= 10

    concentrations.for_each_chunk(work, galaxies, 4)
    assert (seen == 1).all()


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 4)

    def work(chunk):
        raise SettingError("no")

    with pytest.raises(SettingError, match="no"):
        concentrations.for_each_chunk(work, 100, 4)


@pytest.mark.parametrize("groups", [[], [(0, 2), (4, 5)], [(0, 2), (2, 3)], [(1, 2)], [(0, -1)], [(0, 1, 2)]])
def test_groups_that_cannot_be(groups):
    with pytest.raises(SettingError, match="question_index_groups"):
        concentrations.check_question_index_groups(groups)


def test_draws_of_tiny_concentrations_are_of_one_answer_or_another():
    drawn = concentrations.draw_fractions(np.full((4000, 2), 1e-3), np.random.default_rng(0))
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    assert (drawn.max(axis=1) > 0.99).mean() > 0.98
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=4.5 * 0.5 / np.sqrt(4000))


def test_draws_have_the_mean_and_variance_of_a_dirichlet():
    alpha = np.array([0.3, 2.0, 5.0])
    drawn = concentrations.draw_fractions(np.tile(alpha, (40_000, 1)), np.random.default_rng(1))
    mean = alpha / alpha.sum()
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.004)
    np.testing.assert_allclose(drawn.var(axis=0), mean * (1 - mean) / (alpha.sum() + 1), rtol=0.05)


GROUPS = ((0, 3), (4, 5), (6, 6))


@pytest.mark.parametrize("size", [0.3, 5.0, 60.0])
def test_rounded_votes_are_whole_near_and_add_up_to_the_rounded_total(size):
    votes = np.random.default_rng(0).gamma(0.7, size, (500, 7))
    rounded = concentrations.round_votes(votes, GROUPS)
    assert (rounded % 1 == 0).all()
    assert (np.abs(rounded - votes) < 1).all()
    totals = concentrations.sum_questions(votes, GROUPS)
    np.testing.assert_array_equal(concentrations.sum_questions(rounded, GROUPS), np.rint(totals))
    np.testing.assert_array_equal(concentrations.round_votes(rounded, GROUPS), rounded)


def test_no_other_whole_votes_of_the_same_total_are_nearer():
    votes = np.random.default_rng(1).random((200, 3)) * 3
    rounded = concentrations.round_votes(votes, [(0, 2)])
    every = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    for given, found in zip(votes, rounded, strict=True):
        same = every[every.sum(axis=1) == found.sum()]
        assert ((found - given) ** 2).sum() == pytest.approx(((same - given) ** 2).sum(axis=1).min())


def test_rounded_votes_by_hand():
    votes = [[0.5, 0.5, 0.5, 0.5, 1.5, 1.5, 2.2], [0.3, 0.3, 0.3, 0.3, 0.2, 0.2, 0.7]]
    expected = [[1, 1, 0, 0, 2, 1, 2], [1, 0, 0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(concentrations.round_votes(votes, GROUPS), expected)


def test_a_thousand_of_very_many_votes_have_the_distribution_of_a_thousand():
    generator = np.random.default_rng(0)
    votes = generator.multinomial(1500, generator.dirichlet([1, 1, 1], 2000))
    first = concentrations.round_votes(votes, [(0, 2)])
    assert (first.sum(axis=1) == 1000).all()
    assert (first <= votes).all()
    # the first of three uniform fractions is a Beta(1, 2)
    assert stats.kstest(first[:, 0], stats.betabinom(1000, 1, 2).cdf).pvalue > 0.01
    one = concentrations.round_votes([[400_000, 0, 600_000, 3, 4]], [(0, 2), (3, 4)])
    assert one[0, [1, 3, 4]].tolist() == [0, 3, 4]
    assert one[0, 0] == pytest.approx(400, abs=80)


def test_votes_that_cannot_be_rounded_are_refused():
    assert concentrations.round_votes(np.ones((0, 7)), GROUPS).shape == (0, 7)
    with pytest.raises(SettingError, match=r"votes: got shape \(7,\), expected \(7, 7\)"):
        concentrations.round_votes(np.ones(7), GROUPS)
    with pytest.raises(SettingError, match="votes: got a negative, NaN"):
        concentrations.round_votes(np.full((1, 7), np.nan), GROUPS)
    with pytest.raises(SettingError, match=r"votes: got 7e\+09 for a question"):
        concentrations.round_votes([[3e9, 4e9]], [(0, 1)])


def test_concentrations_too_large_for_logarithms_are_refused():
    with pytest.raises(SettingError, match="at most 1e9"):
        concentrations.check_concentrations([[1e12, 1.0]], [(0, 1)])
