"""Scores of predictions: hand-computed cases, laws, and the real tree of Galaxy Zoo 2."""

import json

import numpy as np
import pandas as pd
import pytest

from zoobot import schemas
from zoobot.errors import SettingError
from zoobot.predictions.evaluate import summarise
from zoobot.stats import dirichlet, metrics, predictive
from zoobot.stats.score_table import ScoreConfig, tabulate_cumulative, tabulate_scores

RINGS = schemas.load("gz_rings")
SMALL = schemas.Schema.from_dict(
    {
        "name": "small",
        "question": [
            {"name": "smooth", "answers": ["yes", "no", "artifact"]},
            {"name": "arms", "answers": ["1", "2"], "asked_after": ["smooth_no"]},
            {"name": "odd", "answers": ["yes", "no"], "asked_after": ["smooth_yes", "smooth_no"]},
            {"name": "which", "answers": ["ring", "other"], "asked_after": ["odd_yes"]},
        ],
    }
)


def made_up(galaxies=200, seed=0):
    """Votes (some questions without any), fractions and concentrations."""
    rng = np.random.default_rng(seed)
    votes = rng.integers(0, 12, (galaxies, 9)).astype(float)
    votes[rng.random(galaxies) < 0.3, 3:5] = 0
    concentrations = 1 + 20 * rng.random((galaxies, 3, 9))
    fractions = dirichlet.expected_fractions(concentrations, SMALL.question_index_groups)
    return votes, fractions, concentrations


def evaluate(votes, fractions, schema, *more, **named):
    """Scores by name, without error bars and floors."""
    return summarise(
        tabulate_scores(votes, fractions, schema, *more, config=ScoreConfig(resamples=0, draws=0), **named)
    )


def test_hand_computed():
    votes = [[9, 1], [1, 3], [0, 0], [2, 2]]
    fractions = [[0.7, 0.3], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]]
    scores = evaluate(votes, fractions, RINGS)["questions"]["ring"]
    assert (scores["galaxies"], scores["agreed_galaxies"]) == (3, 1)
    assert scores["loss"] is None
    # errors 0.2, 0.25, 0.3 with weights 10, 4, 4
    assert scores["mean_absolute_error"] == pytest.approx((2 + 1 + 1.2) / 18)
    assert scores["rms_error"] == pytest.approx(((0.4 + 0.25 + 0.36) / 18) ** 0.5)
    # tied predictions: the first answer, wrong for the second galaxy; tied votes: either is right
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["agreed_accuracy"] == 1
    # baseline: 12 of 18 votes are yes
    assert scores["baseline_mean_absolute_error"] == pytest.approx(
        (10 * (0.9 - 2 / 3) + 4 * (2 / 3 - 0.25) + 4 * (2 / 3 - 0.5)) / 18
    )
    assert scores["baseline_accuracy"] == pytest.approx(2 / 3)


def test_right_fractions_have_no_error():
    votes = np.array([[6.0, 2.0], [0.0, 5.0]])
    scores = evaluate(votes, votes / votes.sum(axis=1, keepdims=True), RINGS)["all_questions"]
    assert scores["mean_absolute_error"] == scores["rms_error"] == 0
    assert scores["accuracy"] == scores["agreed_accuracy"] == 1


def test_predicting_the_baseline_scores_as_the_baseline():
    votes, _, _ = made_up()
    fractions = np.broadcast_to(metrics.baseline_fractions(votes, SMALL), votes.shape)
    concentrations = np.broadcast_to(metrics.baseline_concentrations(votes, SMALL), votes.shape)
    result = evaluate(votes, fractions, SMALL, concentrations)
    for scores in [result["all_questions"], *result["questions"].values()]:
        for name in ("loss", "mean_absolute_error", "rms_error", "accuracy", "agreed_accuracy"):
            assert scores[name] == pytest.approx(scores[f"baseline_{name}"])


def test_loss_is_the_mean_over_galaxies_with_votes_and_sums_over_questions():
    votes, fractions, concentrations = made_up()
    result = evaluate(votes, fractions, SMALL, concentrations)
    log_p = predictive.log_predictive(votes, concentrations, SMALL.question_index_groups)
    voted = votes[:, 3:5].any(axis=1)
    assert 0 < voted.sum() < len(votes)
    assert result["questions"]["arms"]["galaxies"] == voted.sum()
    assert result["questions"]["arms"]["loss"] == pytest.approx(-log_p[voted, 1].mean())
    assert result["all_questions"]["loss"] == pytest.approx(-log_p.sum(axis=1).mean())


def test_totals_weigh_questions_by_their_votes():
    votes, fractions, _ = made_up()
    result = evaluate(votes, fractions, SMALL)
    each, total = list(result["questions"].values()), result["all_questions"]
    assert total["agreed_galaxies"] == sum(scores["agreed_galaxies"] for scores in each)
    asked = [votes[:, first : last + 1].sum() for first, last in SMALL.question_index_groups]
    errors = [scores["mean_absolute_error"] for scores in each]
    assert total["mean_absolute_error"] == pytest.approx(np.average(errors, weights=asked))


def test_order_of_galaxies_does_not_matter_and_galaxies_without_votes_do_not_count():
    votes, fractions, concentrations = made_up()
    expected = evaluate(votes, fractions, SMALL, concentrations)
    votes, fractions, concentrations = (
        np.concatenate([each[::-1], np.full_like(each[:7], fill)])
        for each, fill in ((votes, 0), (fractions, 0.5), (concentrations, 1))
    )
    result = evaluate(votes, fractions, SMALL, concentrations)
    for name, scores in expected["questions"].items():
        assert result["questions"][name] == pytest.approx(scores)
    assert result["all_questions"] == pytest.approx(expected["all_questions"])


def test_without_votes_there_are_no_scores_and_all_is_json():
    result = evaluate(np.zeros((3, 9)), np.full((3, 9), 0.5), SMALL, np.ones((3, 9)))
    scores = json.loads(json.dumps(result, allow_nan=False))["all_questions"]
    assert scores["galaxies"] == 0
    assert scores["loss"] is scores["rms_error"] is scores["baseline_loss"] is scores["accuracy"] is None


def test_baseline_from_reference_votes():
    result = evaluate([[3, 1]], [[0.5, 0.5]], RINGS, reference_votes=[[1, 3], [3, 5]])
    scores = result["questions"]["ring"]
    assert scores["baseline_mean_absolute_error"] == pytest.approx(0.75 - 1 / 3)
    assert scores["baseline_accuracy"] == 0


def test_baseline_concentrations_are_most_probable():
    rng = np.random.default_rng(3)
    fractions = rng.dirichlet([0.5, 2, 1], size=300)
    votes = np.zeros((300, 9))
    votes[:, :3] = [rng.multinomial(30, each) for each in fractions]
    fitted = metrics.baseline_concentrations(votes, SMALL)
    np.testing.assert_allclose(fitted[:3], [0.5, 2, 1], rtol=0.2)
    assert (fitted[3:] == 1).all()

    def log_probability(alpha):
        constant = np.broadcast_to(alpha, (300, 3))
        return predictive.log_predictive(votes[:, :3], constant, [(0, 2)]).sum()

    best = log_probability(fitted[:3])
    for answer in range(3):
        for factor in (0.98, 1.02):
            nearby = fitted[:3].copy()
            nearby[answer] *= factor
            assert log_probability(nearby) < best


def test_baseline_of_votes_all_alike_is_finite():
    scores = evaluate([[5, 5]] * 4 + [[8, 0]] * 0, [[0.5, 0.5]] * 4, RINGS)
    # a binomial, the limit of high concentrations: 252 of the 1024 ways
    assert scores["all_questions"]["baseline_loss"] == pytest.approx(-np.log(252 / 1024), rel=1e-3)
    unanimous = evaluate([[8, 0]] * 4, [[0.5, 0.5]] * 4, RINGS)
    assert unanimous["all_questions"]["baseline_loss"] == pytest.approx(0, abs=1e-2)


def rms(fractions, measured, everyone_asked=(), schema=SMALL):
    return metrics.cumulative_square_errors(fractions, measured, schema, everyone_asked).mean() ** 0.5


def test_cumulative_rms_by_hand():
    fractions = np.array([[0.5, 0.4, 0.1, 0.25, 0.75, 0.2, 0.8, 0.5, 0.5]])
    through_tree = np.array([[0.5, 0.4, 0.1, 0.1, 0.3, 0.18, 0.72, 0.09, 0.09]])
    assert rms(fractions, through_tree) == pytest.approx(0, abs=1e-15)
    everyone = np.array([[0.5, 0.4, 0.1, 0.1, 0.3, 0.2, 0.8, 0.1, 0.1]])
    assert rms(fractions, everyone, ["odd"]) == pytest.approx(0, abs=1e-15)
    assert rms(fractions, everyone + 0.03, ["odd"]) == pytest.approx(0.03)


def test_kaggle_tree_and_mean_vote_baseline(shared_data):
    schema = schemas.load("gz2_full")
    catalog = pd.read_csv(shared_data / "gz2_kaggle" / "catalog.csv")
    table = pd.read_csv(shared_data / "gz2_kaggle" / "fractions.csv").iloc[:, 1:]
    table.columns = catalog.columns[3:]  # Class1.1 ... Class11.6, in the catalog's order
    measured, votes = table[schema.label_cols].to_numpy(), catalog[schema.label_cols].to_numpy(float)
    totals = np.stack([votes[:, a : b + 1].sum(axis=1) for a, b in schema.question_index_groups], axis=1)
    sizes = [b - a + 1 for a, b in schema.question_index_groups]
    fractions = votes / np.maximum(np.repeat(totals, sizes, axis=1), 1)
    odd = ["something-odd-gz2"]
    # the votes are the fractions rounded to whole volunteers: half a vote of about 45 per answer
    assert rms(fractions, measured, odd, schema) < 0.006
    assert rms(fractions, measured, (), schema) > 0.007
    mean = metrics.baseline_fractions(votes, schema)
    assert rms(mean, measured, odd, schema) == pytest.approx(0.1754, abs=1e-4)
    some = slice(400)
    row = tabulate_cumulative(votes[some], fractions[some], measured[some], schema, odd, votes)
    assert row.lower < row.value < row.upper < row.floor < row.baseline < 0.2  # these fractions know the votes


def test_the_floor_and_error_of_cumulative_fractions_are_those_of_made_surveys():
    rng = np.random.default_rng(1)
    true = rng.dirichlet([2, 3], size=1500)
    votes = np.array([rng.multinomial(20, each) for each in true])
    measured = votes / 20
    row = tabulate_cumulative(votes, true, measured, RINGS)
    assert row.value == pytest.approx(np.sqrt(np.mean((true - measured) ** 2)))
    assert row.floor == pytest.approx(row.value, rel=0.06)
    squares = ((true - measured) ** 2).mean(axis=1)  # of the root, by the derivative
    error = squares.std() / np.sqrt(1500) / (2 * row.value)
    assert (row.upper - row.lower) / 2 == pytest.approx(1.645 * error, rel=0.2)


@pytest.mark.parametrize("name", ["votes", "fractions", "reference_votes"])
def test_values_that_cannot_be(name):
    given = {"votes": np.ones((4, 9)), "fractions": np.full((4, 9), 0.5), "reference_votes": np.ones((2, 9))}
    for value in (np.nan, -1.0, np.inf):
        bad = given[name].copy()
        bad[1, 4] = value
        with pytest.raises(SettingError, match=rf"^{name}: got .* for arms_2 in row 1"):
            evaluate(schema=SMALL, **{**given, name: bad})
    with pytest.raises(SettingError, match=rf"^{name}: got shape \(4, 8\)"):
        evaluate(schema=SMALL, **{**given, name: np.ones((4, 8))})


def test_other_bad_input():
    with pytest.raises(SettingError, match="got 4 and 3 galaxies"):
        evaluate(np.ones((4, 9)), np.ones((3, 9)), SMALL)
    with pytest.raises(SettingError, match="everyone_asked"):
        rms(np.ones((4, 9)), np.ones((4, 9)), ["spiral"])
    with pytest.raises(SettingError, match="fractions: got 3 galaxies"):
        rms(np.ones((3, 9)), np.ones((4, 9)))
