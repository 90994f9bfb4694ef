"""Representations, and what is made of them: rows in order, exact components, neighbours, odd and interesting ones."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from scipy import optimize
from scipy.spatial.distance import cdist

from zoobot.data import images, tables
from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset
from zoobot.errors import CatalogError, PredictionError, SettingError
from zoobot.estimators import checkpoint
from zoobot.estimators.define_model import Model
from zoobot.predictions import representations as representing
from zoobot.predictions.oddness import find_odd
from zoobot.predictions.representation_file import RepresentationFile, load_components, pca_path
from zoobot.predictions.representations import RepresentConfig, represent
from zoobot.predictions.similarity import find_similar, index_path
from zoobot.stats.interest import _loss, predict_interest
from zoobot.stats.neighbours import find_nearest, normalise
from zoobot.stats.oddness import measure_oddness
from zoobot.stats.principal_components import fit_principal_components


@pytest.fixture(scope="module")
def expected(catalog, model_dir):
    """What the model itself says."""
    model = checkpoint.load_model(model_dir)
    dataset = ImageDataset(read_catalog(catalog), size=model.config.input_size)
    with torch.inference_mode():
        return model.represent(dataset.__getitems__(range(len(dataset))).images).numpy()


@pytest.fixture(scope="module")
def representations(catalog, model_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("representations") / "r.parquet"
    represent(RepresentConfig(checkpoint_dir=model_dir, catalog=catalog, save_loc=path, dtype="float32"))
    return path


def write(path, vectors, ids=None):
    """Representations as another program might write them."""
    names = ids or [f"J{number}" for number in range(len(vectors))]
    pq.write_table(pa.table({"id_str": names, "representation": list(np.asarray(vectors))}), path)
    return path


def read(path):
    return np.concatenate(list(RepresentationFile(path).chunks()))


# represent


def test_rows_are_the_pooled_features_in_the_order_of_the_input(catalog, representations, expected):
    table = pq.read_table(representations)
    galaxies = read_catalog(catalog)
    assert table["id_str"].to_pylist() == galaxies["id_str"].tolist()
    assert table["file_loc"].to_pylist() == galaxies["file_loc"].tolist()
    assert table.schema.field("representation").type.list_size == expected.shape[1]
    np.testing.assert_allclose(np.stack(table["representation"].to_numpy()), expected, rtol=1e-4, atol=1e-5)


def test_the_same_input_gives_the_same_bytes(catalog, model_dir, tmp_path):
    found = []
    for name in ("a", "b"):
        config = RepresentConfig(
            checkpoint_dir=model_dir, catalog=catalog, save_loc=tmp_path / f"{name}.parquet", pca=5
        )
        done = represent(config)
        found.append(done.save_loc.read_bytes() + done.components_loc.read_bytes())
    assert found[0] == found[1]


def test_features_in_columns_of_their_own_are_the_same(catalog, model_dir, expected, tmp_path):
    path = tmp_path / "r.parquet"
    represent(RepresentConfig(checkpoint_dir=model_dir, catalog=catalog, save_loc=path, columns="each", batch_size=7))
    table = pq.read_table(path)
    assert table.column_names == ["id_str", "file_loc", *(f"feature_{number}" for number in range(expected.shape[1]))]
    assert table.schema.field("feature_0").type == pa.float16()
    np.testing.assert_allclose(read(path), expected, rtol=2e-3, atol=1e-4)


def test_views_make_it_blind_to_turns_and_mirrors(catalog, model_dir, tmp_path):
    galaxies = read_catalog(catalog).iloc[:3]
    for number, file in enumerate(galaxies["file_loc"]):
        pixels = images.read_image(file)
        for name, turned in {"as_it_is": pixels, "turned": np.rot90(pixels).copy(), "mirrored": pixels[::-1]}.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(images.encode_image(np.ascontiguousarray(turned), "png"))
    found = {}
    for name in ("as_it_is", "turned", "mirrored"):
        path = tmp_path / f"{name}.parquet"
        represent(
            RepresentConfig(
                checkpoint_dir=model_dir,
                folder_to_predict=tmp_path / name,
                save_loc=path,
                tta="dihedral",
                dtype="float32",
            )
        )
        found[name] = read(path)
    for name in ("turned", "mirrored"):  # resized to uint8, they differ by a rounding here and there
        np.testing.assert_allclose(found[name], found["as_it_is"], atol=2e-3)


def test_shards_give_the_same(model_dir, shard_dir, representations, tmp_path):
    path = tmp_path / "r.parquet"
    config = RepresentConfig(
        checkpoint_dir=model_dir, shard_dir=shard_dir, split="unlabelled", save_loc=path, dtype="float32"
    )
    done = represent(config)
    assert (done.galaxies, done.failed, done.failed_loc) == (40, 0, None)
    by_name = RepresentationFile(representations)
    same = read(representations)[by_name.find(RepresentationFile(path).names["id_str"].tolist())]
    np.testing.assert_allclose(read(path), same, rtol=1e-3, atol=1e-4)


def test_components_are_saved_and_serve_other_galaxies(catalog, model_dir, expected, tmp_path):
    path = tmp_path / "r.parquet"
    settings = {"checkpoint_dir": model_dir, "catalog": catalog, "dtype": "float32"}
    done = represent(RepresentConfig(save_loc=path, pca=6, **settings))
    assert (done.features, done.components_loc) == (6, pca_path(path))
    saved = safetensors.numpy.load_file(done.components_loc)
    centred = expected - expected.mean(0)
    variances = np.linalg.svd(centred.astype(float), compute_uv=False) ** 2 / (len(centred) - 1)
    np.testing.assert_allclose(saved["explained_variance"], variances[:6], rtol=1e-3)
    np.testing.assert_allclose(saved["explained_variance_ratio"], (variances / variances.sum())[:6], rtol=1e-3)
    assert done.explained == pytest.approx((variances / variances.sum())[:6].sum(), rel=1e-3)
    np.testing.assert_allclose(read(path), centred @ saved["components"].T, atol=2e-3 * np.sqrt(variances[0]))
    represent(RepresentConfig(save_loc=tmp_path / "again.parquet", pca_from=path, **settings))
    np.testing.assert_array_equal(read(tmp_path / "again.parquet"), read(path))
    assert pca_path(tmp_path / "again.parquet").read_bytes() == pca_path(path).read_bytes()
    represent(RepresentConfig(save_loc=path, overwrite=True, **settings))
    assert not pca_path(path).exists()  # it would be of other representations


def test_many_row_groups_are_one(catalog, model_dir, tmp_path, monkeypatch):
    settings = {"checkpoint_dir": model_dir, "catalog": catalog, "batch_size": 8, "pca": 3, "dtype": "float32"}
    represent(RepresentConfig(save_loc=tmp_path / "one.parquet", **settings))
    monkeypatch.setattr(representing, "ROWS_AT_A_TIME", 16)
    represent(RepresentConfig(save_loc=tmp_path / "many.parquet", **settings))
    assert pq.ParquetFile(tmp_path / "many.parquet").num_row_groups == 3
    np.testing.assert_allclose(read(tmp_path / "many.parquet"), read(tmp_path / "one.parquet"), atol=1e-5)


@pytest.mark.parametrize("pca", [None, 2])
def test_images_that_cannot_be_read_are_listed(catalog, model_dir, tmp_path, pca):
    galaxies = (
        read_catalog(catalog).iloc[:5].assign(file_loc=lambda table: table["file_loc"].where(table.index != 2, "x"))
    )
    galaxies.to_csv(tmp_path / "c.csv", index=False)
    config = RepresentConfig(
        checkpoint_dir=model_dir, catalog=tmp_path / "c.csv", save_loc=tmp_path / "r.parquet", pca=pca
    )
    done = represent(config)
    assert (done.galaxies, done.failed) == (4, 1)
    assert tables.read_table(done.failed_loc)["id_str"].tolist() == ["J0002"]
    assert RepresentationFile(config.save_loc).names["id_str"].tolist() == ["J0000", "J0001", "J0003", "J0004"]
    galaxies.assign(file_loc="x").to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(PredictionError, match="not one of 5 images"):
        represent(RepresentConfig(**{**vars(config), "overwrite": True}))
    assert len(RepresentationFile(config.save_loc)) == 4  # as it was


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"save_loc": "r.csv"}, "written as .parquet"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"columns": "many"}, "columns is 'many'"),
        ({"pca": 0}, "pca is 0"),
        ({"pca": 2, "pca_from": "r.parquet"}, "exclude each other"),
        ({"folder_to_predict": "images"}, "just one of"),
        ({"tta": "all"}, "tta is 'all'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        RepresentConfig(**{"checkpoint_dir": "m", "catalog": "c.csv", "save_loc": "r.parquet", **settings})


def test_what_cannot_be_is_said_before_or_instead(catalog, model_dir, representations, tmp_path, monkeypatch):
    settings = {"checkpoint_dir": model_dir, "catalog": catalog}
    with pytest.raises(PredictionError, match="exists"):
        represent(RepresentConfig(save_loc=representations, **settings))
    with monkeypatch.context() as patch:
        patch.setattr(Model, "represent", None)  # before any galaxy is
        with pytest.raises(SettingError, match="pca is 40; it must be from 1 to 39"):
            represent(RepresentConfig(save_loc=tmp_path / "r.parquet", pca=40, **settings))
    with pytest.raises(PredictionError, match="pca_from"):
        represent(RepresentConfig(save_loc=tmp_path / "r.parquet", pca_from=representations, **settings))
    represent(RepresentConfig(save_loc=tmp_path / "p.parquet", pca=2, **settings))
    with pytest.raises(PredictionError, match="another weights_sha256"):
        load_components(tmp_path / "p.parquet", {"weights_sha256": "0", "tta": "none"})
    with pytest.raises(PredictionError, match="another tta"):
        represent(
            RepresentConfig(
                save_loc=tmp_path / "r.parquet", pca_from=tmp_path / "p.parquet", tta="dihedral", **settings
            )
        )
    assert not (tmp_path / "r.parquet").exists()


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    writer = representing.RepresentationWriter(tmp_path / "r", 1, dtype="float16", columns="list", about={})
    with pytest.raises(PredictionError, match="J1 has numbers that are no float16; use --dtype float32"):
        writer.write(["J0", "J1"], ["", ""], np.array([[1.0], [1e6]], np.float32))
    with pytest.raises(PredictionError, match="the weights of the model may be damaged"):
        writer.write(["J0"], [""], np.array([[np.nan]], np.float32))
    writer.close()


def test_the_file_says_what_it_is_of(representations, model_dir):
    about = json.loads(pq.read_schema(representations).metadata[b"zoobot"])
    assert about["weights_sha256"] == checkpoint.load_config(model_dir)["weights_sha256"]
    assert about["encoder"] == "test_resnet"


def test_files_of_others_are_read_or_refused(tmp_path):
    vectors = np.arange(6.0).reshape(3, 2)
    assert read(write(tmp_path / "r.parquet", vectors)).tolist() == vectors.tolist()
    path = tmp_path / "bad.parquet"
    pd.DataFrame({"id_str": ["a"], "feature_1": [1.0]}).to_parquet(path)
    with pytest.raises(PredictionError, match="neither a column representation nor"):
        RepresentationFile(path)
    write(path, [[1.0], [2.0]], ["a", "a"])
    with pytest.raises(CatalogError, match="unique; twice: a"):
        RepresentationFile(path)
    write(path, [[1.0], [np.nan]])
    with pytest.raises(PredictionError, match="not finite"):
        RepresentationFile(path)
    pq.write_table(pa.table({"id_str": ["a", "b"], "representation": [[1.0], [1.0, 2.0]]}), path)
    with pytest.raises(PredictionError, match="all be of one length"):
        RepresentationFile(path)
    pq.write_table(pa.table({"id_str": ["a"], "representation": ["x"]}), path)
    with pytest.raises(PredictionError, match="lists of floating-point"):
        RepresentationFile(path)
    path.write_bytes(b"PAR1, it says")
    with pytest.raises(CatalogError, match="cannot be read"):
        RepresentationFile(path)
    with pytest.raises(CatalogError, match="no such file"):
        RepresentationFile(tmp_path / "none.parquet")


# the numbers


def test_components_of_chunks_are_those_of_all_at_once():
    generator = np.random.default_rng(0)
    vectors = generator.normal(1000, 1, (300, 8)) @ generator.normal(0, 1, (8, 8))
    found = fit_principal_components(np.array_split(vectors, [1, 2, 40, 290]), 8)
    assert found.total_variance == pytest.approx(vectors.var(axis=0, ddof=1).sum(), rel=1e-9)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(8), atol=1e-9)
    coordinates = (vectors - found.mean) @ found.components.T
    np.testing.assert_allclose(np.cov(coordinates.T), np.diag(found.explained_variance), atol=1e-8 * 1000)
    np.testing.assert_allclose(found.apply(vectors), coordinates, rtol=1e-5, atol=1e-4)
    assert (np.diff(found.explained_variance) <= 0).all()
    assert found.explained_variance_ratio.sum() == pytest.approx(1)


def test_vectors_all_alike_have_no_variance():
    assert fit_principal_components([np.ones((4, 3))], 2).explained_variance_ratio.tolist() == [0, 0]


def test_nearest_in_chunks_are_the_nearest():
    generator = np.random.default_rng(0)
    vectors = normalise(generator.normal(0, 1, (200, 6)).astype(np.float32))
    queries = np.array([3, 150])
    found = find_nearest(vectors[queries], np.array_split(vectors, 7), 9, left_out=queries)
    cosines = 1 - cdist(vectors[queries], vectors, "cosine")
    cosines[[0, 1], queries] = -2
    np.testing.assert_array_equal(found.positions, np.argsort(-cosines, axis=1)[:, :9])
    np.testing.assert_allclose(found.similarities, -np.sort(-cosines, axis=1)[:, :9], atol=1e-6)


def test_oddness_is_the_distance_to_others_and_moves_with_nothing():
    generator = np.random.default_rng(0)
    vectors = np.vstack([generator.normal(0, 1, (200, 5)), np.full((1, 5), 9.0)])
    scores = measure_oddness(vectors)
    assert scores.argmax() == 200
    distances = cdist(vectors, vectors)
    np.testing.assert_allclose(scores, np.sort(distances, axis=1)[:, 1:6].mean(axis=1))
    turn = np.linalg.qr(generator.normal(0, 1, (5, 5)))[0]
    np.testing.assert_allclose(measure_oddness(3 * vectors @ turn + 7), 3 * scores)


def test_rare_galaxies_of_one_kind_do_not_hide_each_other_from_a_sample():
    generator = np.random.default_rng(0)
    vectors = np.vstack([generator.normal(0, 1, (3000, 5)), generator.normal(0, 0.01, (30, 5)) + 6])
    assert np.argsort(-measure_oddness(vectors, sample=300))[:30].min() >= 3000
    assert np.argsort(-measure_oddness(vectors, sample=3030))[:30].min() < 3000


def test_interest_is_high_near_what_was_liked_and_unsure_far_from_all():
    vectors = np.linspace(-1, 9, 101)[:, None]
    rated = np.array([5, 10, 15, 40, 45, 50])
    found = predict_interest(vectors, rated, np.array([5, 5, 4, 0, 1, 0]))
    assert 4 < found.mean[10] < 5.2
    assert -0.2 < found.mean[45] < 1
    assert found.mean[100] == pytest.approx(2.5, abs=0.3)  # the mean of the ratings
    assert found.spread[100] > 2 * found.spread[10]


def test_interest_scales_and_shifts_with_the_ratings():
    generator = np.random.default_rng(0)
    vectors, ratings = generator.normal(0, 1, (50, 3)), generator.uniform(0, 1, 12)
    plain = predict_interest(vectors, np.arange(12), ratings)
    other = predict_interest(10 * vectors, np.arange(12), 5 * ratings - 1)
    np.testing.assert_allclose(other.mean, 5 * plain.mean - 1, rtol=1e-6)
    np.testing.assert_allclose(other.spread, 5 * plain.spread, rtol=1e-6)


def test_ratings_all_the_same_teach_nothing():
    found = predict_interest(np.arange(6.0)[:, None], np.array([0, 1, 3]), np.array([2, 2, 2]))
    np.testing.assert_allclose(found.mean, 2)


def test_the_slope_of_the_loss_is_its_slope():
    generator = np.random.default_rng(0)
    points, targets = generator.normal(0, 1, (9, 2)), generator.normal(0, 1, 9)
    squares = cdist(points, points, "sqeuclidean")
    at = np.array([0.1, -0.2, -0.5])
    numeric = optimize.approx_fprime(at, lambda logarithms: _loss(logarithms, squares, targets)[0], 1e-6)
    np.testing.assert_allclose(_loss(at, squares, targets)[1], numeric, rtol=1e-3, atol=1e-5)


# similar


def test_the_most_similar_come_first_and_not_the_galaxy_itself(tmp_path):
    # around their mean, the origin, they lie at these angles
    angles = np.radians([0, 10, 90, 180, 190, 270])
    path = write(tmp_path / "r.parquet", np.column_stack([np.cos(angles), np.sin(angles)]) + 5)
    done = find_similar(path, ["J0", "J4"], tmp_path / "s.csv", number=2)
    assert (done.galaxies, done.exact) == (6, True)
    table = tables.read_table(tmp_path / "s.csv")
    assert table["query_id_str"].tolist() == ["J0", "J0", "J4", "J4"]
    assert table["rank"].tolist() == [1, 2, 1, 2]
    assert table["id_str"].tolist() == ["J1", "J2", "J3", "J5"]
    np.testing.assert_allclose(table["similarity"], np.cos(np.radians([10, 90, 10, 80])), atol=0.02)


def test_similar_galaxies_are_drawn_and_lost_images_are_black(representations, tmp_path):
    table = pq.read_table(representations)
    lost = table.set_column(1, "file_loc", pa.array(["gone.png", *table["file_loc"].to_pylist()[1:]]))
    pq.write_table(lost, tmp_path / "r.parquet")
    find_similar(tmp_path / "r.parquet", ["J0000", "J0007"], tmp_path / "s.csv", number=4, picture=tmp_path / "s.png")
    assert images.read_image(tmp_path / "s.png").std() > 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ids": ["J99"]}, "J99: not in"),
        ({"ids": []}, "one galaxy or more"),
        ({"ids": ["J1", "J1"]}, "each once"),
        ({"number": 6}, "from 1 to 5"),
        ({"picture": "s.gif"}, "must end with .png"),
        ({"save_loc": "s.doc"}, "cannot write this suffix"),
    ],
)
def test_similar_checks_what_it_is_given(tmp_path, settings, message):
    path = write(tmp_path / "r.parquet", np.random.default_rng(0).normal(0, 1, (6, 2)))
    settings = {"ids": ["J1"], "save_loc": tmp_path / "s.csv", "number": 2, **settings}
    with pytest.raises((SettingError, PredictionError), match=message):
        find_similar(path, **settings)


def test_one_galaxy_is_similar_to_none_and_has_no_components(tmp_path):
    path = write(tmp_path / "r.parquet", np.ones((1, 2)))
    with pytest.raises(PredictionError, match="holds one galaxy"):
        find_similar(path, [RepresentationFile(path).names["id_str"][0]], tmp_path / "s.csv")
    with pytest.raises(SettingError, match="two galaxies or more"):
        fit_principal_components([np.ones((1, 2))], 1)


def test_the_index_finds_the_same_and_is_made_anew_for_others(tmp_path):
    pytest.importorskip("usearch")
    generator = np.random.default_rng(0)
    path = write(tmp_path / "r.parquet", generator.normal(0, 1, (400, 16)))
    ids = [f"J{number}" for number in range(20)]
    find_similar(path, ids, tmp_path / "exact.csv", number=5)
    done = find_similar(path, ids, tmp_path / "index.csv", number=5, exact=False)
    assert done.index_loc == index_path(path)
    made = done.index_loc.stat().st_mtime_ns
    exact, found = (pd.read_csv(tmp_path / name) for name in ("exact.csv", "index.csv"))
    # the index is built by threads, in no fixed order, and may miss a neighbour; what it finds has its true similarity
    pairs = [name for name in exact.columns if exact[name].dtype.kind not in "fi"]
    both = exact.merge(found, on=pairs, suffixes=("", "_found"))
    assert len(both) > 0.9 * len(exact)
    np.testing.assert_allclose(both["similarity"], both["similarity_found"], atol=0.01)
    find_similar(path, ids, tmp_path / "index.csv", number=5, exact=False)
    assert done.index_loc.stat().st_mtime_ns == made
    write(path, generator.normal(0, 1, (300, 16)))
    assert find_similar(path, ids, tmp_path / "index.csv", number=5, exact=False).index_loc != done.index_loc
    assert not done.index_loc.exists()


# odd


@pytest.fixture
def crowd(tmp_path):
    """A crowd, then seven galaxies of one rare kind, and last an outlier."""
    generator = np.random.default_rng(0)
    usual, rare = generator.normal(0, 1, (200, 6)), generator.normal(0, 0.3, (7, 6)) + 4 * np.eye(6)[0]
    return write(tmp_path / "r.parquet", np.vstack([usual, rare, np.full((1, 6), 30.0)]))


def test_the_oddest_come_first(crowd, tmp_path):
    done = find_odd(crowd, tmp_path / "odd.csv", rate_next=10)
    table = tables.read_table(tmp_path / "odd.csv")
    assert table["id_str"].iloc[0] == "J207" == done.rate_next[0]
    assert (np.diff(table["oddness"]) <= 0).all()
    assert (done.galaxies, done.rated) == (208, 0)
    asked = table.dropna(subset="rate_next").sort_values("rate_next")
    assert asked["id_str"].tolist() == done.rate_next
    assert asked["id_str"].tolist()[:5] == table["id_str"].tolist()[:5]  # the others are random
    again = find_odd(crowd, tmp_path / "odd.csv", rate_next=10)
    assert again.rate_next == done.rate_next


def test_who_rates_what_is_asked_finds_the_rare(crowd, tmp_path):
    path = tmp_path / "odd.csv"
    find_odd(crowd, path, rate_next=20)
    for _ in range(3):
        table = tables.read_table(path)
        rare = table["id_str"].isin([f"J{number}" for number in range(200, 207)])
        table.loc[table["rate_next"].notna(), "interest"] = rare * 5.0
        tables.write_table(table, path)
        done = find_odd(crowd, path, ratings=path, rate_next=20)
    table = tables.read_table(path)
    assert done.rated == 80 - 20
    assert set(table["id_str"].iloc[:7]) == {f"J{number}" for number in range(200, 207)}
    assert (np.diff(table["expected_interest"]) <= 0).all()
    assert table.loc[table["interest"].notna(), "rate_next"].isna().all()


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("id_str,stars\nJ1,2\n", "lacks the column interest"),
        ("id_str,interest\nJ1,2\n", "has 1 ratings"),
        ("id_str,interest\nJ1,2\nJ1,3\n", "J1 is rated twice"),
        ("id_str,interest\nJ1,2\nJ2,good\n", "holds 'good'"),
        ("id_str,interest\nJ1,2\nJx,3\n", "Jx: not in"),
    ],
)
def test_ratings_are_checked(crowd, tmp_path, ratings, message):
    (tmp_path / "ratings.csv").write_text(ratings)
    with pytest.raises((CatalogError, PredictionError), match=message):
        find_odd(crowd, tmp_path / "odd.csv", ratings=tmp_path / "ratings.csv")


def test_as_long_as_nothing_is_liked_the_oddest_come_first(crowd, tmp_path):
    (tmp_path / "ratings.csv").write_text("id_str,interest\nJ1,0\nJ2,0\nJ3,\n")
    done = find_odd(crowd, tmp_path / "odd.csv", ratings=tmp_path / "ratings.csv", rate_next=5)
    table = tables.read_table(tmp_path / "odd.csv")
    assert done.rated == 2
    assert "J207" in done.rate_next
    assert (np.diff(table["oddness"]) <= 0).all()


def test_few_galaxies_are_not_odd(tmp_path):
    path = write(tmp_path / "r.parquet", np.eye(4))
    with pytest.raises(PredictionError, match="holds 4 galaxies"):
        find_odd(path, tmp_path / "odd.csv")
