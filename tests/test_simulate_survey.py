"""Simulated volunteers converge on the truth that is written down, and a survey is the same whenever it is made."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose

from zoobot import schemas
from zoobot.data.catalog import read_catalog
from zoobot.data.contact_sheet import draw_contact_sheet
from zoobot.data.images import read_image
from zoobot.errors import SchemaError, SettingError
from zoobot.simulate import survey
from zoobot.simulate.galaxies import Galaxy, draw_galaxy
from zoobot.simulate.impressions import appeals, check_is_known, form_impression
from zoobot.simulate.survey import SurveyConfig, simulate_survey
from zoobot.simulate.volunteers import Volunteers, draw_volunteers

SCHEMA = schemas.load("gz_decals")
SMALL = SurveyConfig(galaxies=12, img_size=32, votes=8, seed=5, volunteers=60)


def make_crowd(number: int = 300, votes: int = 40, seed: int = 0) -> Volunteers:
    return draw_volunteers(SCHEMA, number, votes, np.random.default_rng(seed))


def impression_of(galaxy: Galaxy, img_size: int = 96, **observation):
    return form_impression(galaxy, img_size, 7 * galaxy.effective_radius / img_size, **observation)


def truth_of(galaxy: Galaxy, **observation) -> dict[str, float]:
    crowd = make_crowd()
    truth = crowd.truth(crowd.answer_probabilities(appeals(impression_of(galaxy, **observation), SCHEMA)))
    return dict(zip(SCHEMA.label_cols, truth.probability, strict=True))


# volunteers


@pytest.mark.parametrize("number", range(4))
def test_votes_of_many_volunteers_converge_on_the_recorded_probabilities(number):
    crowd = make_crowd(number=400, votes=200)
    galaxy = draw_galaxy(np.random.default_rng(number))
    probabilities = crowd.answer_probabilities(appeals(impression_of(galaxy), SCHEMA))
    truth = crowd.truth(probabilities)
    generator = np.random.default_rng(number)
    votes = sum(crowd.classify(probabilities, 200, generator).votes for _ in range(300))
    for place, (first, last) in enumerate(SCHEMA.question_index_groups):
        asked = votes[first : last + 1].sum()
        proportion = truth.proportion_asked[place]
        assert abs(asked - 60_000 * proportion) <= 4.5 * np.sqrt(60_000 * proportion * (1 - proportion)) + 1
        expected = truth.probability[first : last + 1]
        assert (abs(votes[first : last + 1] - asked * expected) <= 4.5 * np.sqrt(asked * expected) + 1).all()


def test_the_errors_of_vote_fractions_fall_as_one_over_root_of_their_number():
    crowd = make_crowd(number=3000, votes=1000)
    probabilities = crowd.answer_probabilities(appeals(impression_of(draw_galaxy(np.random.default_rng(7))), SCHEMA))
    expected = crowd.truth(probabilities).probability[0]
    errors = {}
    for votes in (10, 1000):
        generator = np.random.default_rng(votes)
        found = [crowd.classify(probabilities, votes, generator).votes[0] / votes for _ in range(200)]
        errors[votes] = np.sqrt(np.mean((np.array(found) - expected) ** 2))
    assert 6 < errors[10] / errors[1000] < 20  # root of 100, and a bit more as the crowd is used up


def test_probabilities_sum_to_one_and_match_by_hand():
    crowd = Volunteers(
        schemas.load("gz_rings"),
        skill=np.array([1.0, 2.0]),
        bias=np.array([[0.0, 0.0], [0.0, np.log(3)]]),
        carelessness=np.array([0.0, 0.5]),
        activity=np.array([0.75, 0.25]),
    )
    probabilities = crowd.answer_probabilities(np.array([0.0, -np.log(3)]))
    assert_allclose(probabilities, [[0.75, 0.25], [0.5 * 0.75 + 0.25, 0.5 * 0.25 + 0.25]])
    assert_allclose(crowd.truth(probabilities).probability, [0.75 * 0.75 + 0.25 * 0.625, 0.75 * 0.25 + 0.25 * 0.375])


def test_those_who_are_asked_more_often_weigh_more_in_deeper_questions():
    crowd = make_crowd(2, votes=1)
    probabilities = crowd.answer_probabilities(np.zeros(34))
    truth = crowd.truth(probabilities)
    weights = crowd.activity * probabilities[:, 1]  # featured: asked whether edge-on
    assert truth.proportion_asked[1] == pytest.approx(weights.sum())
    assert truth.probability[3] == pytest.approx((weights * probabilities[:, 3]).sum() / weights.sum())


def test_answers_follow_the_tree_and_nobody_looks_twice():
    crowd = make_crowd()
    probabilities = crowd.answer_probabilities(np.zeros(34))
    said = crowd.classify(probabilities, 40, np.random.default_rng(0))
    assert len(set(said.volunteer.tolist())) == 40
    questions = np.stack([said.answers[:, a : b + 1].sum(axis=1) for a, b in SCHEMA.question_index_groups], axis=1)
    assert set(np.unique(questions)) <= {0, 1}
    featured, edge_on, face_on = said.answers[:, 1], said.answers[:, 3], said.answers[:, 4]
    assert (questions[:, 0] == 1).all()
    assert (questions[:, 1] == featured).all()
    assert (questions[:, 2] == face_on).all()
    assert (questions[:, 6] == edge_on).all()


def test_activity_decides_how_often_somebody_looks():
    crowd = make_crowd(number=50, votes=10)
    probabilities = crowd.answer_probabilities(np.zeros(34))
    generator = np.random.default_rng(0)
    seen = np.zeros(50)
    for _ in range(2000):
        seen[crowd.classify(probabilities, 10, generator).volunteer] += 1
    assert crowd.activity.max() <= 0.1 + 1e-12
    assert (abs(seen - 20_000 * crowd.activity) < 5 * np.sqrt(20_000 * crowd.activity)).all()


def test_skill_sharpens_and_carelessness_blurs():
    appeal = np.array([0.0, -1.0])
    people = {
        name: Volunteers(
            schemas.load("gz_rings"), np.array([skill]), np.zeros((1, 2)), np.array([careless]), np.ones(1)
        ).answer_probabilities(appeal)[0, 0]
        for name, skill, careless in (("usual", 1, 0), ("skilled", 3, 0), ("unskilled", 0.1, 0), ("careless", 1, 1))
    }
    assert people["skilled"] > people["usual"] > people["unskilled"] > people["careless"] == 0.5


def test_too_few_volunteers_are_refused():
    with pytest.raises(SettingError, match="votes"):
        make_crowd(number=5, votes=6)
    crowd = make_crowd(number=20, votes=10)
    with pytest.raises(SettingError, match="twice"):
        crowd.classify(crowd.answer_probabilities(np.zeros(34)), 20, np.random.default_rng(0))


# impressions

SPIRAL = Galaxy(magnitude=15, half_light_radius=5, arm_number=2, arm_contrast=0.8, arm_pitch=20)


def test_each_kind_of_galaxy_is_called_what_it_is():
    elliptical = truth_of(Galaxy(bulge_share=1, bulge_radius=4, bulge_sersic_index=4, bulge_axis_ratio=0.95))
    assert elliptical["smooth-or-featured_smooth"] > 0.8
    assert elliptical["how-rounded_round"] > 0.6
    spiral = truth_of(SPIRAL)
    assert spiral["smooth-or-featured_featured-or-disk"] > 0.8
    assert spiral["has-spiral-arms_yes"] > 0.8
    assert spiral["spiral-arm-count_2"] > 0.5
    edge_on = truth_of(Galaxy(inclination=89, disk_thickness=0.12, half_light_radius=5))
    assert edge_on["disk-edge-on_yes"] > 0.8
    assert edge_on["edge-on-bulge_none"] > 0.6
    bar = truth_of(Galaxy(magnitude=15, half_light_radius=5, bar_share=0.3, bar_length=4))
    assert bar["bar_no"] < 0.25
    merger = truth_of(Galaxy(tail_share=0.25, tail_number=2, companion_ratio=0.8))
    assert merger["merging_merger"] > 0.5
    assert truth_of(Galaxy(type="artifact"))["smooth-or-featured_artifact"] > 0.7


def test_features_fade_with_distance_noise_and_tilt():
    def arms(galaxy):
        return truth_of(galaxy)["has-spiral-arms_yes"]

    small = dataclasses.replace(SPIRAL, half_light_radius=1.2)
    assert arms(SPIRAL) > arms(small)
    assert arms(SPIRAL) > arms(dataclasses.replace(SPIRAL, magnitude=20))
    assert arms(SPIRAL) > arms(dataclasses.replace(SPIRAL, inclination=70))
    assert arms(SPIRAL) > arms(dataclasses.replace(SPIRAL, inclination=88))
    assert arms(SPIRAL) > arms(dataclasses.replace(SPIRAL, arm_contrast=0.2))
    assert impression_of(SPIRAL).spiral > impression_of(SPIRAL, img_size=16).spiral
    side = Galaxy(inclination=89, half_light_radius=5, magnitude=15)
    faint = dataclasses.replace(side, half_light_radius=0.4, magnitude=22)
    assert impression_of(side).edge_on > 0.9
    assert impression_of(faint).edge_on < 0.5
    assert abs(impression_of(faint).bulge - 0.5) < 0.5 * abs(impression_of(side).bulge - 0.5)


def test_winding_follows_the_pitch_and_disturbance_the_tails():
    winding = {pitch: truth_of(dataclasses.replace(SPIRAL, arm_pitch=pitch)) for pitch in (9, 21, 38)}
    for pitch, answer in ((9, "tight"), (21, "medium"), (38, "loose")):
        assert max(winding, key=lambda each: winding[each][f"spiral-winding_{answer}"]) == pitch
    shares = {0.1: "minor-disturbance", 0.3: "major-disturbance"}
    tails = {share: truth_of(Galaxy(tail_share=share, tail_number=2, magnitude=14)) for share in shares}
    for share, answer in shares.items():
        assert tails[share][f"merging_{answer}"] > 0.4


def test_a_bulge_alone_is_judged_by_its_own_size():
    small, large = (Galaxy(bulge_share=1, bulge_radius=r, bulge_axis_ratio=0.3) for r in (0.5, 6.0))
    at = {"img_size": 96, "pixel_scale": 0.4}
    assert form_impression(small, **at).roundness > form_impression(large, **at).roundness + 0.2


def test_only_campaigns_of_galaxy_zoo_may_follow_a_questions_name():
    tree = {"name": "t", "question": [{"name": "bar-broken", "answers": ["yes", "no"]}]}
    with pytest.raises(SchemaError, match="bar-broken"):
        check_is_known(schemas.Schema.from_dict(tree))


@pytest.mark.parametrize("name", sorted(set(schemas.available()) - {"gz_hubble"}))
def test_volunteers_know_the_galaxy_zoo_trees(name):
    schema = schemas.load(name)
    values = appeals(impression_of(SPIRAL), schema)
    assert values.shape == (len(schema.label_cols),)
    assert np.isfinite(values).all()
    for first, last in schema.question_index_groups:
        assert np.ptp(values[first : last + 1]) > 0.01  # no two answers' meanings are alike throughout


def test_unknown_questions_are_named(schema):
    with pytest.raises(SchemaError, match=r"shape \(round, flat\); tilt"):
        check_is_known(schema)
    with pytest.raises(SchemaError, match="galaxy-symmetrical-hubble"):
        check_is_known(schemas.load("gz_hubble"))


# surveys


def read_all(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey") / "s"
    simulate_survey(folder, SCHEMA, SMALL)
    return folder


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(small, tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_PIXELS_A_PART", 5 * 32**2)
    simulate_survey(tmp_path / "again", SCHEMA, SMALL, workers=2)
    assert read_all(tmp_path / "again") == read_all(small)
    simulate_survey(tmp_path / "other", SCHEMA, dataclasses.replace(SMALL, seed=6))
    assert (tmp_path / "other/catalog.csv").read_bytes() != (small / "catalog.csv").read_bytes()


def test_a_galaxy_is_the_same_however_many_there_are(small, tmp_path):
    simulate_survey(tmp_path / "less", SCHEMA, dataclasses.replace(SMALL, galaxies=3))
    whole, less = (pd.read_parquet(folder / "truth.parquet") for folder in (small, tmp_path / "less"))
    pd.testing.assert_frame_equal(whole.iloc[:3], less)
    name = "images/SIM5-0000002.png"
    assert (small / name).read_bytes() == (tmp_path / "less" / name).read_bytes()


def test_the_catalog_can_be_used_at_once_and_votes_fit_the_tree(small):
    catalog = read_catalog(small / "catalog.csv", SCHEMA.label_cols, check_files=True)
    assert len(catalog) == 12
    assert read_image(catalog["file_loc"].iloc[0], size=None, channels=3).shape == (32, 32, 3)
    votes = catalog[SCHEMA.label_cols].to_numpy()
    assert (votes[:, :3].sum(axis=1) == 8).all()
    assert (votes[:, 3:5].sum(axis=1) == votes[:, 1]).all()


def test_clicks_have_the_columns_of_real_ones(small, shared_data):
    real = pd.read_csv(shared_data / "panoptes" / "classifications.csv", nrows=1)
    assert list(pd.read_csv(small / "clicks.csv", nrows=1).columns) == list(real.columns)


def test_clicks_add_up_to_the_votes(small):
    clicks = pd.read_csv(small / "clicks.csv", dtype={"subject_ids": str})
    assert len(clicks) == 12 * 8
    assert clicks["classification_id"].is_unique
    assert not clicks.duplicated(["user_name", "subject_ids"]).any()
    catalog = pd.read_csv(small / "catalog.csv").set_index("id_str")
    counted = pd.DataFrame(0, index=catalog.index, columns=SCHEMA.label_cols)
    for click in clicks.itertuples():
        id_str = json.loads(click.subject_data)[click.subject_ids]["id_str"]
        for entry in json.loads(click.annotations):
            counted.loc[id_str, f"{entry['task_label']}_{entry['value']}"] += 1
        times = json.loads(click.metadata)
        assert times["started_at"] < times["finished_at"]
    pd.testing.assert_frame_equal(counted, catalog[SCHEMA.label_cols])


def test_the_volunteers_are_told_of(small):
    people = pd.read_parquet(small / "volunteers.parquet").set_index("user_name")
    assert len(people) == 60
    assert people["activity"].sum() == pytest.approx(1)
    clicks = pd.read_csv(small / "clicks.csv")
    assert set(clicks["user_name"]) <= set(people.index)
    assert (people.loc[clicks["user_name"], "user_id"].to_numpy() == clicks["user_id"].to_numpy()).all()
    assert {f"{name}_bias" for name in SCHEMA.label_cols} <= set(people.columns)


def test_the_crowd_does_not_depend_on_the_votes():
    few, many = (draw_volunteers(SCHEMA, 500, votes, np.random.default_rng(0)) for votes in (5, 160))
    assert (few.activity == many.activity).all()
    assert (few.bias == many.bias).all()


def test_people_differ():
    crowd = make_crowd(number=2000, votes=10)
    assert np.log(crowd.skill).std() == pytest.approx(0.3, rel=0.1)
    assert crowd.bias.std() == pytest.approx(0.45, rel=0.05)
    assert crowd.carelessness.mean() == pytest.approx(1.3 / 13.3, rel=0.1)
    assert crowd.activity.max() > 2 * crowd.activity.mean()


def test_where_nobody_is_asked_the_truth_is_still_a_probability():
    crowd = dataclasses.replace(make_crowd(), carelessness=np.zeros(300))
    appeal = np.zeros(34)
    appeal[1:3] = -5000
    truth = crowd.truth(crowd.answer_probabilities(appeal))
    assert truth.proportion_asked[1] == 0
    assert truth.probability[3] + truth.probability[4] == pytest.approx(1)


def test_the_truth_is_complete(small):
    truth = pd.read_parquet(small / "truth.parquet")
    assert [field.name for field in dataclasses.fields(Galaxy) if field.name not in truth] == []
    for first, last in SCHEMA.question_index_groups:
        names = [f"{name}_probability" for name in SCHEMA.label_cols[first : last + 1]]
        assert_allclose(truth[names].sum(axis=1), 1)
    assert_allclose(truth["smooth-or-featured_proportion_asked"], 1)
    galaxy = Galaxy(**{field.name: truth[field.name][0] for field in dataclasses.fields(Galaxy)})
    assert galaxy.magnitude == draw_galaxy(np.random.default_rng([5, 1, 0])).magnitude


def test_fits_images_hold_nanomaggies_and_the_place_on_the_sky(tmp_path):
    config = dataclasses.replace(SMALL, galaxies=2, file_format="fits", clicks=False)
    simulate_survey(tmp_path / "f", schemas.load("gz2"), config)
    catalog = pd.read_csv(tmp_path / "f/catalog.csv")
    truth = pd.read_parquet(tmp_path / "f/truth.parquet")
    assert not (tmp_path / "f/clicks.csv").exists()
    image, header = fits.getdata(tmp_path / "f" / catalog["file_loc"][0], header=True)
    assert image.shape == (3, 32, 32)
    assert header["BANDS"] == "grz"
    wcs = WCS(header, naxis=2)
    centre = wcs.pixel_to_world(15.5, 15.5)
    assert_allclose([centre.ra.deg, centre.dec.deg], catalog.loc[0, ["ra", "dec"]].to_numpy(float), atol=1e-6)
    assert wcs.pixel_to_world(0, 15.5).ra > centre.ra  # east is left
    assert wcs.pixel_to_world(15.5, 31).dec > centre.dec
    scale = wcs.proj_plane_pixel_scales()[0].to_value("arcsec")
    assert scale == pytest.approx(truth["pixel_scale"][0])


def test_a_finished_survey_is_left_alone_and_another_is_refused(small, tmp_path):
    before = (small / "catalog.csv").stat().st_mtime_ns
    assert simulate_survey(small, SCHEMA, SMALL) == small / "catalog.csv"
    assert (small / "catalog.csv").stat().st_mtime_ns == before
    with pytest.raises(SettingError, match="another seed and file_format"):
        simulate_survey(small, SCHEMA, dataclasses.replace(SMALL, seed=9, file_format="jpeg"))
    with pytest.raises(SettingError, match="another schema"):
        simulate_survey(small, schemas.load("gz2"), SMALL)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SettingError, match="something else"):
        simulate_survey(tmp_path, SCHEMA, SMALL)


def test_a_survey_killed_at_its_first_or_last_moment_is_mended(small, tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / ".tmp-99999999-survey.json").write_text("half")
    config = dataclasses.replace(SMALL, galaxies=2)
    simulate_survey(folder, SCHEMA, config)
    (folder / "parts").mkdir()
    simulate_survey(folder, SCHEMA, config)
    assert not (folder / "parts").exists()
    (folder / "catalog.csv").unlink()
    assert simulate_survey(folder, SCHEMA, config).exists()
    for content, words in (("[1]", "cannot be read"), ("half", "cannot be read"), ("{}", "another zoobot")):
        (folder / "survey.json").write_text(content)
        with pytest.raises(SettingError, match=words):
            simulate_survey(folder, SCHEMA, config)


@pytest.mark.parametrize(
    "wrong", [{"galaxies": 0}, {"img_size": 2}, {"votes": 0}, {"seed": -1}, {"file_format": "gif"}, {"volunteers": 3}]
)
def test_impossible_surveys_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        SurveyConfig(**wrong)


@pytest.mark.slow
def test_a_killed_survey_goes_on_to_the_same_bytes(tmp_path):
    config = SurveyConfig(galaxies=400, img_size=32, votes=5, volunteers=50)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    simulate_survey(whole, SCHEMA, config)
    command = f"zoobot simulate --save-dir {killed} --galaxies 400 --img-size 32 --votes 5 --volunteers 50 --workers 1"
    process = subprocess.Popen([sys.executable, "-m", *command.split()])
    while not list(killed.glob("parts/*.parquet")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "catalog.csv").exists()
    assert list(killed.glob("parts/*.parquet"))
    simulate_survey(killed, SCHEMA, config)
    assert read_all(killed) == read_all(whole)


def test_contact_sheets_need_a_label_for_each_image():
    figure = draw_contact_sheet([np.zeros((4, 4, 3), np.uint8)] * 3, ["a", "b", "c"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]
    with pytest.raises(SettingError):
        draw_contact_sheet([], [])
