"""The noise floor against made surveys whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from zoobot.errors import SettingError
from zoobot.stats.galaxy_scores import measure_fractions
from zoobot.stats.noise_floor import draw_true_fractions, multinomial_loss


def make_survey(kind: str, galaxies: int = 4000, volunteers: int = 30):
    """True fractions of a population, and votes."""
    rng = np.random.default_rng(5)
    if kind == "dirichlet":
        true = rng.dirichlet([0.5, 2, 1], size=galaxies)
    else:  # three kinds of galaxies, each with a scatter
        kinds = np.array([[0.9, 0.08, 0.02], [0.15, 0.8, 0.05], [0.4, 0.3, 0.3]])[rng.integers(0, 3, galaxies)]
        true = rng.dirichlet(np.ones(3), size=galaxies) * 0.1 + kinds * 0.9
    return true, rng.multinomial(rng.integers(1, volunteers, galaxies), true).astype(float)


def score(votes, fractions):
    measured = measure_fractions(votes, fractions)
    return {
        "loss": multinomial_loss(votes, fractions).mean(),
        "rms": np.sqrt(measured["mean_square_error"].mean()),
        "mae": measured["mean_absolute_error"].mean(),
        "accuracy": measured["correct"].mean(),
    }


@pytest.mark.parametrize("kind", ["dirichlet", "kinds"])
def test_drawn_fractions_score_as_the_true_ones(kind):
    true, votes = make_survey(kind)
    seeds = map(np.random.default_rng, range(3))  # the prior's parts are drawn too
    drawn = [score(votes, each) for seed in seeds for each in draw_true_fractions(votes, 3, seed)]
    expected = score(votes, true)
    for name, margin in {"loss": 0.05, "rms": 0.05, "mae": 0.05, "accuracy": 0.03}.items():
        assert np.mean([each[name] for each in drawn]) == pytest.approx(expected[name], rel=margin), name


def test_the_floor_does_not_know_the_votes_it_is_compared_with():
    """A prior fitted to the votes themselves would make few galaxies of many votes look 2% less noisy."""
    excess = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kinds = np.array([[0.9, 0.08, 0.02], [0.15, 0.8, 0.05], [0.4, 0.3, 0.3]])[rng.integers(0, 3, 400)]
        true = rng.dirichlet(np.ones(3), size=400) * 0.1 + kinds * 0.9
        votes = rng.multinomial(rng.integers(30, 40, 400), true).astype(float)
        drawn = [score(votes, each)["loss"] for each in draw_true_fractions(votes, 5, rng)]
        excess.append(np.mean(drawn) / score(votes, true)["loss"] - 1)
    assert np.mean(excess) == pytest.approx(0, abs=0.01)


def test_who_is_asked_depends_on_the_fractions():
    rng = np.random.default_rng(3)
    volunteers = np.repeat([2, 15, 60], 300)
    share = np.repeat([0.15, 0.5, 0.85], 300)
    votes = rng.binomial(volunteers, share)
    votes = np.stack([votes, volunteers - votes], axis=1).astype(float)
    drawn = np.mean(list(draw_true_fractions(votes, 5, rng)), axis=0)[:, 0]
    for part, expected in ((slice(0, 300), 0.15), (slice(300, 600), 0.5), (slice(600, 900), 0.85)):
        assert drawn[part].mean() == pytest.approx(expected, abs=0.03)
    assert drawn[:300].std() < 0.12  # of galaxies with two votes most is known from their like


def test_errors_agree_with_the_unbiased_variance_of_a_binomial():
    _, votes = make_survey("kinds")
    total = votes.sum(axis=1)
    votes = votes[total >= 5]
    total = votes.sum(axis=1)
    fractions = votes / total[:, None]
    unbiased = np.sqrt(((fractions * (1 - fractions)).mean(axis=1) / (total - 1)).mean())
    drawn = [score(votes, each)["rms"] for each in draw_true_fractions(votes, 5, np.random.default_rng(0))]
    assert np.mean(drawn) == pytest.approx(unbiased, rel=0.05)


def test_drawn_fractions_are_fractions_and_the_same_for_a_seed():
    votes = np.array([[3.0, 0.0], [0.0, 0.0], [0.5, 7.25]])
    first, second = (list(draw_true_fractions(votes, 3, np.random.default_rng(4))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.sum(first, axis=2), 1)
    assert (np.array(first)[:, 1] == 0.5).all()
    assert np.ptp(np.array(first)[:, 0, 0]) > 0
    nobody = next(draw_true_fractions(np.zeros((2, 4)), 1, np.random.default_rng(0)))
    assert (nobody == 0.25).all()


def test_multinomial_loss_is_scipys():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(4), size=20)
    votes = rng.multinomial(15, p)
    np.testing.assert_allclose(multinomial_loss(votes.astype(float), p), -stats.multinomial(15, p).logpmf(votes))


def test_bad_votes():
    for votes in ([1.0, 2.0], [[1.0, np.nan]], [[-1.0, 2.0]]):
        with pytest.raises(SettingError, match="votes"):
            next(draw_true_fractions(votes, 1, np.random.default_rng(0)))
