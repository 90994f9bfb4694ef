"""Scores of predictions: hand-computed cases, laws, and the real tree of Galaxy Zoo 2."""

import json

import numpy as np
import pandas as pd
import pytest

from zoobot import schemas
from zoobot.errors import SettingError
from zoobot.stats import dirichlet, metrics, predictive

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


def test_hand_computed():
    votes = [[9, 1], [1, 3], [0, 0], [2, 2]]
    fractions = [[0.7, 0.3], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]]
    scores = metrics.evaluate_predictions(votes, fractions, RINGS)["questions"]["ring"]
    assert (scores["galaxies"], scores["votes"], scores["confident_galaxies"]) == (3, 18, 1)
    assert scores["loss"] is None
    # errors 0.2, 0.25, 0.3 with weights 10, 4, 4
    assert scores["mean_absolute_error"] == pytest.approx((2 + 1 + 1.2) / 18)
    assert scores["rms_error"] == pytest.approx(((0.4 + 0.25 + 0.36) / 18) ** 0.5)
    # tied predictions: the first answer, wrong for the second galaxy; tied votes: either is right
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["confident_accuracy"] == 1
    # baseline: 12 of 18 votes are yes
    assert scores["baseline_mean_absolute_error"] == pytest.approx(
        (10 * (0.9 - 2 / 3) + 4 * (2 / 3 - 0.25) + 4 * (2 / 3 - 0.5)) / 18
    )
    assert scores["baseline_accuracy"] == pytest.approx(2 / 3)


def test_right_fractions_have_no_error():
    votes = np.array([[6.0, 2.0], [0.0, 5.0]])
    scores = metrics.evaluate_predictions(votes, votes / votes.sum(axis=1, keepdims=True), RINGS)["all_questions"]
    assert scores["mean_absolute_error"] == scores["rms_error"] == 0
    assert scores["accuracy"] == scores["confident_accuracy"] == 1


def test_predicting_the_baseline_scores_as_the_baseline():
    votes, _, _ = made_up()
    fractions = np.broadcast_to(metrics.baseline_fractions(votes, SMALL), votes.shape)
    concentrations = np.broadcast_to(metrics.baseline_concentrations(votes, SMALL), votes.shape)
    result = metrics.evaluate_predictions(votes, fractions, SMALL, concentrations)
    for scores in [result["all_questions"], *result["questions"].values()]:
        for name in ("loss", "mean_absolute_error", "rms_error", "accuracy", "confident_accuracy"):
            assert scores[name] == pytest.approx(scores[f"baseline_{name}"])


def test_loss_is_the_mean_over_galaxies_with_votes_and_sums_over_questions():
    votes, fractions, concentrations = made_up()
    result = metrics.evaluate_predictions(votes, fractions, SMALL, concentrations)
    log_p = predictive.log_predictive(votes, concentrations, SMALL.question_index_groups)
    voted = votes[:, 3:5].any(axis=1)
    assert 0 < voted.sum() < len(votes)
    assert result["questions"]["arms"]["galaxies"] == voted.sum()
    assert result["questions"]["arms"]["loss"] == pytest.approx(-log_p[voted, 1].mean())
    assert result["all_questions"]["loss"] == pytest.approx(-log_p.sum(axis=1).mean())


def test_totals_weigh_questions_by_their_votes():
    votes, fractions, _ = made_up()
    result = metrics.evaluate_predictions(votes, fractions, SMALL)
    each, total = list(result["questions"].values()), result["all_questions"]
    assert total["votes"] == sum(scores["votes"] for scores in each)
    assert total["confident_galaxies"] == sum(scores["confident_galaxies"] for scores in each)
    weighted = sum(scores["votes"] * scores["mean_absolute_error"] for scores in each)
    assert total["mean_absolute_error"] == pytest.approx(weighted / total["votes"])


def test_order_of_galaxies_does_not_matter_and_galaxies_without_votes_do_not_count():
    votes, fractions, concentrations = made_up()
    expected = metrics.evaluate_predictions(votes, fractions, SMALL, concentrations)
    votes, fractions, concentrations = (
        np.concatenate([each[::-1], np.full_like(each[:7], fill)])
        for each, fill in ((votes, 0), (fractions, 0.5), (concentrations, 1))
    )
    result = metrics.evaluate_predictions(votes, fractions, SMALL, concentrations)
    for name, scores in expected["questions"].items():
        assert result["questions"][name] == pytest.approx(scores)
    assert result["all_questions"] == pytest.approx(expected["all_questions"])


def test_without_votes_there_are_no_scores_and_all_is_json():
    result = metrics.evaluate_predictions(np.zeros((3, 9)), np.full((3, 9), 0.5), SMALL, np.ones((3, 9)))
    scores = json.loads(json.dumps(result, allow_nan=False))["all_questions"]
    assert scores["galaxies"] == scores["votes"] == 0
    assert scores["loss"] is scores["rms_error"] is scores["baseline_loss"] is scores["accuracy"] is None


def test_baseline_from_reference_votes():
    result = metrics.evaluate_predictions([[3, 1]], [[0.5, 0.5]], RINGS, reference_votes=[[1, 3], [3, 5]])
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
    scores = metrics.evaluate_predictions([[5, 5]] * 4 + [[8, 0]] * 0, [[0.5, 0.5]] * 4, RINGS)
    # a binomial, the limit of high concentrations: 252 of the 1024 ways
    assert scores["all_questions"]["baseline_loss"] == pytest.approx(-np.log(252 / 1024), rel=1e-3)
    unanimous = metrics.evaluate_predictions([[8, 0]] * 4, [[0.5, 0.5]] * 4, RINGS)
    assert unanimous["all_questions"]["baseline_loss"] == pytest.approx(0, abs=1e-2)


def test_cumulative_rms_by_hand():
    fractions = np.array([[0.5, 0.4, 0.1, 0.25, 0.75, 0.2, 0.8, 0.5, 0.5]])
    through_tree = np.array([[0.5, 0.4, 0.1, 0.1, 0.3, 0.18, 0.72, 0.09, 0.09]])
    assert metrics.cumulative_rms(fractions, through_tree, SMALL) == pytest.approx(0, abs=1e-15)
    everyone = np.array([[0.5, 0.4, 0.1, 0.1, 0.3, 0.2, 0.8, 0.1, 0.1]])
    assert metrics.cumulative_rms(fractions, everyone, SMALL, ["odd"]) == pytest.approx(0, abs=1e-15)
    assert metrics.cumulative_rms(fractions, everyone + 0.03, SMALL, ["odd"]) == pytest.approx(0.03)


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
    assert metrics.cumulative_rms(fractions, measured, schema, odd) < 0.006
    assert metrics.cumulative_rms(fractions, measured, schema) > 0.007
    assert metrics.baseline_cumulative_rms(votes, measured, schema, odd) == pytest.approx(0.1754, abs=1e-4)


@pytest.mark.parametrize("name", ["votes", "fractions", "reference_votes"])
def test_values_that_cannot_be(name):
    given = {"votes": np.ones((4, 9)), "fractions": np.full((4, 9), 0.5), "reference_votes": np.ones((2, 9))}
    for value in (np.nan, -1.0, np.inf):
        bad = given[name].copy()
        bad[1, 4] = value
        with pytest.raises(SettingError, match=rf"^{name}: got .* for arms_2 in row 1"):
            metrics.evaluate_predictions(schema=SMALL, **{**given, name: bad})
    with pytest.raises(SettingError, match=rf"^{name}: got shape \(4, 8\)"):
        metrics.evaluate_predictions(schema=SMALL, **{**given, name: np.ones((4, 8))})


def test_other_bad_input():
    with pytest.raises(SettingError, match="fractions: got shape"):
        metrics.evaluate_predictions(np.ones((4, 9)), np.ones((3, 9)), SMALL)
    with pytest.raises(SettingError, match="everyone_asked"):
        metrics.cumulative_rms(np.ones((4, 9)), np.ones((4, 9)), SMALL, ["spiral"])
    with pytest.raises(SettingError, match="fractions: got 3 galaxies"):
        metrics.cumulative_rms(np.ones((3, 9)), np.ones((4, 9)), SMALL)
