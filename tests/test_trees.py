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
    asked = trees.estimate_proportions_asked(alpha, schema, draws=100)
    cumulative = trees.estimate_cumulative_fractions(alpha, schema, draws=100)
    np.testing.assert_allclose(asked.mean, schema.proportion_asked(each).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cumulative.mean, schema.cumulative_fractions(each).mean(axis=0), rtol=1e-12)


def test_standard_deviation_by_hand():
    # arms, smooth, odd, which, tight, colour
    alpha = np.array([[3.0, 1.0, 2.0, 4.0, 2.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 6.0, 2.0]])
    asked, cumulative = (
        estimate(alpha, SMALL, draws=100)
        for estimate in (trees.estimate_proportions_asked, trees.estimate_cumulative_fractions)
    )
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
    for estimate, follow in (
        (trees.estimate_proportions_asked, schema.proportion_asked),
        (trees.estimate_cumulative_fractions, schema.cumulative_fractions),
    ):
        result = estimate(alpha, schema, draws=2000)
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
    result = trees.estimate_cumulative_fractions(alpha, SMALL, draws=4000)
    sd = dirichlet.fraction_variances(alpha, groups) ** 0.5
    np.testing.assert_allclose(result.sd[:, first], sd[:, first], rtol=1e-9)
    for edge, share in ((result.lower, 0.05), (result.upper, 0.95)):
        below = dirichlet.fraction_cdf(edge, alpha, groups)
        np.testing.assert_allclose(below[:, first], share, atol=0.02)


def test_everyone_is_asked_the_first_question():
    result = trees.estimate_proportions_asked(made_up(SMALL), SMALL, draws=100)
    for values, expected in ((result.mean, 1), (result.sd, 0), (result.lower, 1), (result.upper, 1)):
        assert (values[:, [1, 5]] == expected).all()


def test_samples_that_disagree_widen():
    one, other = [99.0, 1.0], [1.0, 99.0]
    schema = schemas.load("gz_rings")
    agreed = trees.estimate_cumulative_fractions([[one, one]], schema)
    opposed = trees.estimate_cumulative_fractions([[one, other]], schema)
    assert (opposed.sd > 10 * agreed.sd).all()
    assert (opposed.upper - opposed.lower > 0.9).all()


def test_chunks_do_not_matter_and_seeds_do(monkeypatch):
    alpha = made_up(SMALL)
    expected = trees.estimate_proportions_asked(alpha, SMALL, draws=200)
    monkeypatch.setattr(concentrations, "CHUNK_VALUES", 300)
    again = trees.estimate_proportions_asked(alpha, SMALL, draws=200)
    np.testing.assert_array_equal(again.lower, expected.lower)
    np.testing.assert_allclose(again.sd, expected.sd, rtol=1e-12)
    other = trees.estimate_proportions_asked(alpha, SMALL, draws=200, seed=1)
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
    assert trees.estimate_proportions_asked(np.ones((0, 3, 13)), SMALL).mean.shape == (0, 6)
    with pytest.raises(SettingError, match="concentrations"):
        trees.estimate_proportions_asked(alpha[..., 1:], SMALL)
    with pytest.raises(SettingError, match="credibility"):
        trees.estimate_cumulative_fractions(alpha, SMALL, 90)
    with pytest.raises(SettingError, match="draws"):
        trees.estimate_cumulative_fractions(alpha, SMALL, draws=10)
    with pytest.raises(SettingError, match="values"):
        trees.blank_unlikely_asked(np.ones((2, 12)), np.ones((2, 6)), SMALL)
    with pytest.raises(SettingError, match="proportions_asked"):
        trees.blank_unlikely_asked(np.ones((2, 13)), np.ones((3, 6)), SMALL)
    with pytest.raises(SettingError, match="threshold"):
        trees.blank_unlikely_asked(np.ones((2, 13)), np.ones((2, 6)), SMALL, 50)
