"""The columns of a catalogue: what they hold against scipy and by hand, how many, and that others read them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from zoobot import schemas
from zoobot.errors import SettingError
from zoobot.predictions import catalogue
from zoobot.predictions.catalogue import count_columns, make_catalogue
from zoobot.predictions.evaluate import evaluate
from zoobot.predictions.predict_on_images import PredictConfig, predict
from zoobot.stats.trees import estimate_tree

NAMES = ["a", "b", "c"]
ALPHA = np.array(  # shape: round, flat; tilt, of the flat: upright, lying, unclear
    [
        [[90, 10, 4, 2, 2], [10, 90, 4, 2, 2]],
        [[3, 7, 20, 5, 5], [3, 7, 20, 5, 5]],
        [[1.5, 1.2, 1, 1, 8], [8, 1.1, 1, 2, 3]],
    ],
    np.float32,
)


def make(schema, **settings):
    return make_catalogue(NAMES, NAMES, ALPHA, schema, bad_pixels=np.zeros(3, int), **settings)


def test_the_number_of_columns_is_known_beforehand(schema):
    assert make(schema).shape[1] == count_columns(schema, 2)
    assert make(schema, keep_concentrations=False).shape[1] == count_columns(schema, 0)
    assert make(schema, uncertainty=True, raw=ALPHA).shape[1] == count_columns(schema, 4, uncertainty=True)


def test_the_proportion_asked_is_the_mean_over_samples_along_the_whole_tree():
    gz_decals, generator = schemas.load("gz_decals"), np.random.default_rng(0)
    alpha = np.exp(generator.normal(0, 2, (3, 2, len(gz_decals.label_cols)))).astype(np.float32)
    table = make_catalogue(NAMES, NAMES, alpha, gz_decals)
    asked = table[[f"{name}_proportion_asked" for name in gz_decals.question_names]]
    expected = estimate_tree(alpha, gz_decals, draws=100).proportions_asked.mean
    np.testing.assert_allclose(asked, expected, rtol=1e-5)


def test_more_of_the_posterior_changes_nothing_else_and_everything_is_read_as_before(schema):
    plain, more = make(schema), make(schema, uncertainty=True)
    pd.testing.assert_frame_equal(more[plain.columns], plain)
    assert not more.isna().any(axis=None)
    for read in (catalogue.read_fractions, catalogue.read_intervals, catalogue.read_concentrations):
        np.testing.assert_array_equal(read(more, schema), read(plain, schema))
    pd.testing.assert_frame_equal(catalogue.make_friendly(more, schema), catalogue.make_friendly(plain, schema))


def test_which_answer_leads(schema):
    table = make(schema, uncertainty=True)
    expected = stats.beta(ALPHA[..., 1], ALPHA[..., 0]).cdf(0.5).mean(axis=1)
    np.testing.assert_allclose(table["shape_round_probability_leads"], expected, rtol=1e-5)
    tilts = [f"tilt_{answer}_probability_leads" for answer in ("upright", "lying", "unclear")]
    np.testing.assert_allclose(table[tilts].sum(axis=1), 1, rtol=1e-5)
    assert table["tilt_upright_probability_leads"][1] > 0.99


def test_doubt_and_disagreement(schema):
    table = make(schema, uncertainty=True)
    assert table["shape_entropy"][0] == pytest.approx(np.log(2))  # on the whole either, but samples are sure
    assert table["shape_between_samples"][0] == pytest.approx(np.log(2) - stats.entropy([0.9, 0.1]))
    assert table["shape_between_samples"][1] == pytest.approx(0, abs=1e-6)  # they agree


def test_shares_of_all_volunteers(schema):
    table = make(schema, uncertainty=True)
    flat = ALPHA[..., 1] / ALPHA[..., :2].sum(axis=-1)
    upright = flat * ALPHA[..., 2] / ALPHA[..., 2:].sum(axis=-1)
    np.testing.assert_allclose(table["tilt_upright_cumulative"], upright.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(table["shape_flat_cumulative"], table["shape_flat_fraction"], rtol=1e-5)
    np.testing.assert_allclose(table["shape_proportion_asked_lower"], 1)
    for edge, probability in (("lower", 0.05), ("upper", 0.95)):
        # who is flat is asked of the tilt; edges are quantiles of draws
        for column in (f"tilt_proportion_asked_{edge}", f"shape_flat_cumulative_{edge}"):
            reached = stats.beta(ALPHA[..., 1], ALPHA[..., 0]).cdf(table[column].to_numpy()[:, None]).mean(axis=1)
            np.testing.assert_allclose(reached, probability, atol=0.03)
        assert (table[f"tilt_upright_cumulative_{edge}"] <= table[f"shape_flat_cumulative_{edge}"]).all()


def test_the_shortest_intervals_hold_as_much_and_are_shorter(schema):
    equal, shortest = make(schema), make(schema, intervals="shortest")
    first = ALPHA[..., 0]
    others = ALPHA[..., 1]
    edges = [shortest[f"shape_round_fraction_{edge}"].to_numpy()[:, None] for edge in ("lower", "upper")]
    below = [stats.beta(first, others).cdf(edge).mean(axis=1) for edge in edges]
    np.testing.assert_allclose(below[1] - below[0], 0.9, atol=1e-4)
    lengths = [t["shape_round_fraction_upper"] - t["shape_round_fraction_lower"] for t in (equal, shortest)]
    assert (lengths[1] < lengths[0] + 1e-6).all()
    assert lengths[1][2] < lengths[0][2] - 0.01
    unchanged = [name for name in equal if not name.endswith(("_fraction_lower", "_fraction_upper"))]
    pd.testing.assert_frame_equal(shortest[unchanged], equal[unchanged])


def test_predict_writes_them_and_evaluate_reads_them(catalog, model_dir, schema, tmp_path):
    scores = []
    for settings in ({}, {"uncertainty": True}):
        path = tmp_path / f"p{len(scores)}.parquet"
        predict(checkpoint_dir=model_dir, catalog=catalog, save_loc=path, **settings)
        evaluate(path, catalog, tmp_path / "m.json", schema=schema)
        scores.append((tmp_path / "m.json").read_text())
    table = pd.read_parquet(tmp_path / "p1.parquet")
    assert table.shape == (40, count_columns(schema, 5, uncertainty=True))
    narrow, wide = table["tilt_lying_cumulative_lower"], table["tilt_lying_cumulative_upper"]
    assert (narrow < wide).all()
    assert scores[0] == scores[1]


def test_unknown_intervals_and_too_many_columns_are_refused(catalog, model_dir, tmp_path):
    where = {"checkpoint_dir": model_dir, "catalog": catalog}
    with pytest.raises(SettingError, match="intervals is 'narrow'; it must be one of equal-tailed, shortest"):
        PredictConfig(**where, save_loc="p.csv", intervals="narrow")
    samples = (999 - 2 - 3 * 5 - 2) // 5  # what fits without more
    with pytest.raises(SettingError, match="999"):
        predict(**where, save_loc=tmp_path / "p.fits", n_samples=samples, uncertainty=True)
