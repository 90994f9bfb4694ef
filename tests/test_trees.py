"""Laws of posteriors along the decision tree: by hand, against the tree's own arithmetic and by sampling."""

import numpy as np
import pytest

from zoobot import schemas
from zoobot.errors import SettingError
from zoobot.stats import concentrations, dirichlet, trees

SMALL = schemas.Schema.from_dict(
    {
        "name": "small",
        "question": [
            {"name": "arms", "answers": ["1", "2"], "asked_after": ["smooth_no"]},  # before its parent, on purpose
            {"name": "smooth", "answers": ["yes", "no", "artifact"]},
            {"name": "odd", "answers": ["yes", "no"], "asked_after": ["smooth_yes", "smooth_no"]},
            {"name": "which", "answers": ["ring", "other"], "asked_after": ["odd_yes"]},
            {"name": "tight", "answers": ["yes", "no"], "asked_after": ["arms_1", "smooth_artifact"]},
            {"name": "colour", "answers": ["red", "blue"]},
        ],
    }
)


def made_up(schema, galaxies=20, samples=3, lowest=0.5, highest=50.0, seed=0):
    rng = np.random.default_rng(seed)
    return lowest * (highest / lowest) ** rng.random((galaxies, samples, len(schema.label_cols)))


def draw(alpha, schema, size):
    """Fractions of one galaxy."""
    rng = np.random.default_rng(1)
    return np.concatenate(
        [
            np.concatenate(
                [rng.dirichlet(each[first : last + 1], size) for first, last in schema.question_index_groups], 1
            )
            for each in alpha
        ]
    )


@pytest.mark.parametrize("schema", [SMALL, schemas.load("gz_decals")], ids=lambda schema: schema.name)
def test_means_are_those_of_each_samples_expected_fractions(schema):
    alpha = made_up(schema)
    each = [dirichlet.expected_fractions(alpha[:, sample], schema.question_index_groups) for sample in range(3)]
    found = trees.estimate_tree(alpha, schema, draws=100)
    asked, cumulative = schema.proportion_asked(each), schema.cumulative_fractions(each)
    np.testing.assert_allclose(found.proportions_asked.mean, asked.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.cumulative_fractions.mean, cumulative.mean(axis=0), rtol=1e-12)


def test_standard_deviation_by_hand():
    # arms, smooth, odd, which, tight, colour
    alpha = np.array([[3.0, 1.0, 2.0, 4.0, 2.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 6.0, 2.0]])
    found = trees.estimate_tree(alpha, SMALL, draws=100)
    asked, cumulative = found.proportions_asked, found.cumulative_fractions
    # smooth: fractions 0.25, 0.5, 0.25 of A = 8, so variances 0.1875 / 9 and 0.25 / 9
    assert asked.sd[0, 0] == pytest.approx((0.25 / 9) ** 0.5)
    assert asked.sd[0, 2] == pytest.approx((0.1875 / 9) ** 0.5)  # 1 − artifact
    # two arms: E[x²] E[y²] − (E x E y)², x = smooth_no (4 of 8), y = arms_2 (1 of 4)
    assert cumulative.sd[0, 1] == pytest.approx((4 * 5 / (8 * 9) * 1 * 2 / (4 * 5) - 0.125**2) ** 0.5)
    # tight: x y + z, with z = artifact (2 of 8), y = arms_1 (3 of 4); E[x y z] = E[y] E[x z]
    square = 4 * 5 / 72 * 3 * 4 / 20 + 2 * 3 / 72 + 2 * 0.75 * 4 * 2 / 72
    assert asked.mean[0, 4] == pytest.approx(0.625)
    assert asked.sd[0, 4] == pytest.approx((square - 0.625**2) ** 0.5)


@pytest.mark.parametrize("schema", [SMALL, schemas.load("gz2_full")], ids=lambda schema: schema.name)
def test_moments_and_intervals_agree_with_sampling(schema):
    alpha = made_up(schema, galaxies=2)
    found = trees.estimate_tree(alpha, schema, draws=2000)
    for result, follow in (
        (found.proportions_asked, schema.proportion_asked),
        (found.cumulative_fractions, schema.cumulative_fractions),
    ):
        for galaxy in range(2):
            drawn = follow(draw(alpha[galaxy], schema, 20_000))
            np.testing.assert_allclose(drawn.mean(axis=0), result.mean[galaxy], atol=5e-3)
            np.testing.assert_allclose(drawn.std(axis=0), result.sd[galaxy], rtol=0.05, atol=1e-4)
            for edge, share in ((result.lower, 0.05), (result.upper, 0.95)):
                below = (drawn <= edge[galaxy] + 1e-12).mean(axis=0)
                certain = result.sd[galaxy] == 0
                assert (below[certain] == 1).all()
                np.testing.assert_allclose(below[~certain], share, atol=0.025)


def test_first_question_has_the_moments_and_intervals_of_its_fractions():
    alpha = made_up(SMALL)
    groups = SMALL.question_index_groups
    first = slice(2, 5)
    result = trees.estimate_tree(alpha, SMALL, draws=4000).cumulative_fractions
    sd = dirichlet.fraction_variances(alpha, groups) ** 0.5
    np.testing.assert_allclose(result.sd[:, first], sd[:, first], rtol=1e-9)
    for edge, share in ((result.lower, 0.05), (result.upper, 0.95)):
        below = dirichlet.fraction_cdf(edge, alpha, groups)
        np.testing.assert_allclose(below[:, first], share, atol=0.02)


def test_everyone_is_asked_the_first_question():
    result = trees.estimate_tree(made_up(SMALL), SMALL, draws=100).proportions_asked
    for values, expected in ((result.mean, 1), (result.sd, 0), (result.lower, 1), (result.upper, 1)):
        assert (values[:, [1, 5]] == expected).all()


def test_samples_that_disagree_widen():
    one, other = [99.0, 1.0], [1.0, 99.0]
    schema = schemas.load("gz_rings")
    agreed = trees.estimate_tree([[one, one]], schema).cumulative_fractions
    opposed = trees.estimate_tree([[one, other]], schema).cumulative_fractions
    assert (opposed.sd > 10 * agreed.sd).all()
    assert (opposed.upper - opposed.lower > 0.9).all()


def test_each_draw_follows_the_tree():
    alpha = made_up(SMALL, galaxies=1, samples=2)[0]
    shares = trees._draw_shares(alpha, trees._asking_order(SMALL), 100, np.random.default_rng(0)).T
    asked = np.repeat(shares[:, 13:], [last - first + 1 for first, last in SMALL.question_index_groups], axis=1)
    np.testing.assert_allclose(SMALL.proportion_asked(shares[:, :13] / asked), shares[:, 13:])


def test_quantiles_are_numpys():
    values, probabilities = np.random.default_rng(0).random((3, 137)), np.array([0.0, 0.05, 0.5, 0.95, 1.0])
    expected = np.quantile(values, probabilities, axis=1)
    np.testing.assert_allclose(trees._sorted_quantiles(values, probabilities), expected, rtol=1e-12)


def test_chunks_do_not_matter_and_seeds_do(monkeypatch):
    alpha = made_up(SMALL)
    expected = trees.estimate_tree(alpha, SMALL, draws=200).cumulative_fractions
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 300)
    again = trees.estimate_tree(alpha, SMALL, draws=200).cumulative_fractions
    np.testing.assert_array_equal(again.lower, expected.lower)
    np.testing.assert_allclose(again.sd, expected.sd, rtol=1e-12)
    other = trees.estimate_tree(alpha, SMALL, draws=200, seed=1).cumulative_fractions
    assert (other.lower != expected.lower).any()


def test_blank_where_the_question_is_unlikely_to_be_asked():
    fractions = np.arange(13.0)[None] / 13
    asked = [[0.6, 1.0, 0.7, 0.49, 0.5, 1.0]]
    shown = trees.blank_unlikely_asked(fractions, asked, SMALL)
    np.testing.assert_array_equal(np.isnan(shown[0]), [0] * 7 + [1] * 2 + [0] * 4)
    np.testing.assert_array_equal(shown[0, :7], fractions[0, :7])
    assert np.isnan(trees.blank_unlikely_asked(fractions, asked, SMALL, threshold=0.65)[0, :2]).all()
    assert not np.isnan(trees.blank_unlikely_asked(fractions, asked, SMALL, threshold=0)).any()


def test_no_galaxies_and_bad_input():
    alpha = made_up(SMALL)
    assert trees.estimate_tree(np.ones((0, 3, 13)), SMALL).proportions_asked.mean.shape == (0, 6)
    with pytest.raises(SettingError, match="concentrations"):
        trees.estimate_tree(alpha[..., 1:], SMALL)
    with pytest.raises(SettingError, match="credibility"):
        trees.estimate_tree(alpha, SMALL, 90)
    with pytest.raises(SettingError, match="draws"):
        trees.estimate_tree(alpha, SMALL, draws=10)
    with pytest.raises(SettingError, match="values"):
        trees.blank_unlikely_asked(np.ones((2, 12)), np.ones((2, 6)), SMALL)
    with pytest.raises(SettingError, match="proportions_asked"):
        trees.blank_unlikely_asked(np.ones((2, 13)), np.ones((3, 6)), SMALL)
    with pytest.raises(SettingError, match="threshold"):
        trees.blank_unlikely_asked(np.ones((2, 13)), np.ones((2, 6)), SMALL, 50)
