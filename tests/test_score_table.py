"""Tables of scores: right whichever way they are computed, with honest error bars, and fit to be printed in papers."""

import dataclasses
import inspect
import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from typer.testing import CliRunner

from zoobot import schemas
from zoobot.cli.evaluate import evaluate as evaluate_command
from zoobot.cli.main import app
from zoobot.errors import SettingError
from zoobot.predictions.evaluate import evaluate
from zoobot.predictions.score_files import make_latex
from zoobot.stats import dirichlet
from zoobot.stats.bootstrap import bootstrap_weights
from zoobot.stats.calibration import measure_calibration
from zoobot.stats.classification import area_under_roc
from zoobot.stats.concentrations import round_votes
from zoobot.stats.noise_floor import draw_true_fractions
from zoobot.stats.score_table import ALL_QUESTIONS, ScoreConfig, ScoreRow, roc_curves, tabulate_scores

RINGS = schemas.load("gz_rings")
SHAPES = schemas.Schema.from_dict(
    {
        "name": "shapes",
        "question": [
            {"name": "shape", "answers": ["round", "flat", "none"]},
            {"name": "tilt", "answers": ["up", "down"], "asked_after": ["shape_flat"]},
        ],
    }
)


def made_up(galaxies=400, seed=0, volunteers=40):
    """A survey of Dirichlets, and a model that knows them: votes, fractions and concentrations."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.3, 6, (galaxies, 2, 5))
    chosen = alpha[np.arange(galaxies), rng.integers(0, 2, galaxies)]
    gammas = rng.standard_gamma(chosen)
    votes = np.zeros((galaxies, 5))
    votes[:, :3] = rng.multinomial(volunteers, gammas[:, :3] / gammas[:, :3].sum(axis=1, keepdims=True))
    votes[:, 3:] = rng.multinomial(votes[:, 1].astype(int), gammas[:, 3:] / gammas[:, 3:].sum(axis=1, keepdims=True))
    return votes, dirichlet.expected_fractions(alpha, SHAPES.question_index_groups), alpha


def by_name(rows):
    return {(row.question, row.answer, row.measure, row.subset): row for row in rows}


def test_calibration_is_that_of_measure_calibration():
    votes, fractions, alpha = made_up()
    votes[:30, 3:] += 0.3  # made whole where it matters
    lower, upper = dirichlet.fraction_intervals(alpha, SHAPES.question_index_groups, 0.9)
    rows = by_name(tabulate_scores(votes, fractions, SHAPES, alpha, widths=upper - lower))
    whole = round_votes(votes, SHAPES.question_index_groups)
    questions, overall = measure_calibration(whole, alpha, SHAPES.question_index_groups)
    for name, expected in zip((*SHAPES.question_names, ALL_QUESTIONS), (*questions, overall), strict=True):
        found = {
            row.measure: row for (question, _, _, subset), row in rows.items() if (question, subset) == (name, "all")
        }
        for measure, estimate in (("coverage_80", expected.coverages[0]), ("coverage_90", expected.coverages[1])):
            row = found[measure]
            assert row.value == pytest.approx(estimate.value)
            assert (row.upper - row.lower) / 2 == pytest.approx(1.645 * estimate.standard_error, rel=0.25)
            assert row.floor == pytest.approx(int(measure[-2:]) / 100)
        histogram = [found[f"pit_{tenth}"].value for tenth in range(1, 11)]
        np.testing.assert_allclose(histogram, expected.pit.density)
        assert found["calibration_error"].value == pytest.approx(expected.calibration_error.value, rel=0.05)
        if name != ALL_QUESTIONS:
            assert found["width_90"].value == pytest.approx(expected.width.value, rel=0.01)


def test_the_calibration_error_of_a_right_model_is_that_of_a_perfect_one():
    votes, fractions, alpha = made_up(2000)
    for row in tabulate_scores(votes, fractions, SHAPES, alpha):
        if row.measure == "calibration_error":
            assert 0 < row.floor < 0.02
            assert row.lower <= row.value <= row.upper < 0.04
    wrong = by_name(tabulate_scores(votes, fractions**3 / 2, SHAPES))[ALL_QUESTIONS, "", "calibration_error", "all"]
    assert wrong.lower > 0.1


def test_the_area_is_of_the_fraction_as_a_sign_that_the_answer_leads_alone_or_with_others():
    votes, fractions, _ = made_up()
    rows = by_name(tabulate_scores(votes, fractions, SHAPES))
    curves = roc_curves(votes, fractions, SHAPES)
    tilted = votes[:, 3:].sum(axis=1) >= 20
    for answer, number, shown in (("shape_round", 0, votes[:, 0] >= 0), ("tilt_up", 3, tilted)):
        leads = votes[:, number] == votes[:, : 3 if number < 3 else 5][:, 0 if number < 3 else 3 :].max(axis=1)
        one, other = fractions[shown & leads, number], fractions[shown & ~leads, number]
        area = stats.mannwhitneyu(one, other).statistic / (len(one) * len(other))
        row = rows[answer.split("_")[0], answer, "auc", "relevant"]
        assert row.value == pytest.approx(area)
        assert row.lower < area < row.upper < row.floor <= 1
        assert row.baseline == 0.5
        curve = curves[answer]
        assert integrate.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(area)


def test_the_floor_of_the_area_is_the_mean_over_draws_of_the_truth():
    votes, fractions, _ = made_up(60)
    config = ScoreConfig(resamples=0, draws=3, seed=7)
    row = by_name(tabulate_scores(votes, fractions, SHAPES, config=config))["shape", "shape_flat", "auc", "relevant"]
    leads = votes[:, 1] == votes[:, :3].max(axis=1)
    drawn = draw_true_fractions(votes[:, :3], 3, np.random.default_rng([7, 1, 0]))
    assert row.floor == pytest.approx(np.mean([area_under_roc(leads, true[:, 1]) for true in drawn]))


def test_relevant_and_agreed_galaxies_counted_by_hand():
    votes = [
        [0, 34, 0, 30, 4],  # flat, up: sure of both
        [10, 24, 0, 12, 12],  # asked of more than half, up and down tie
        [20, 14, 0, 14, 0],  # asked of less than half
        [33, 0, 0, 0, 0],  # too few volunteers
    ]
    fractions = [[0.1, 0.8, 0.1, 0.4, 0.6], [0.2, 0.8, 0, 0.3, 0.7], [0.3, 0.7, 0, 1, 0], [1, 0, 0, 1, 0]]
    rows = by_name(tabulate_scores(votes, fractions, SHAPES))
    assert rows["shape", "", "accuracy", "relevant"].galaxies == 3
    assert rows["shape", "", "accuracy", "relevant"].value == pytest.approx(2 / 3)
    assert rows["shape", "", "precision_weighted", "relevant"].value == pytest.approx(2 / 3 * 2 / 3)
    assert rows["shape", "", "accuracy", "relevant_agreed"].galaxies == 1
    assert rows["tilt", "", "accuracy", "relevant"].galaxies == 2
    assert rows["tilt", "", "accuracy", "relevant"].value == 0.5  # of two that tie either is right
    assert rows["tilt", "", "accuracy", "relevant_agreed"].value == 0
    assert rows[ALL_QUESTIONS, "", "accuracy", "relevant"].value == pytest.approx(3 / 5)
    assert rows["shape", "shape_round", "auc", "relevant"].value == 1
    assert rows["shape", "shape_none", "auc", "relevant"].value is None
    everyone = ScoreConfig(min_volunteers=0, min_share_asked=0)
    assert by_name(tabulate_scores(votes, fractions, SHAPES, config=everyone))[
        "shape", "", "accuracy", "relevant"
    ].value == pytest.approx(3 / 4)


def test_perfect_predictions_have_perfect_classes():
    votes, _, _ = made_up()
    totals = np.repeat([votes[:, :3].sum(axis=1), votes[:, 3:].sum(axis=1)], [3, 2], axis=0).T
    rows = tabulate_scores(votes, votes / np.maximum(totals, 1), SHAPES)
    for row in rows:
        if row.subset in ("relevant", "relevant_agreed") and not row.answer:
            assert row.value == pytest.approx(1)
            assert row.lower == pytest.approx(1)


def test_a_model_that_knows_what_can_be_known_lies_between_baseline_and_floor():
    votes, fractions, alpha = made_up(1000)
    rows = by_name(tabulate_scores(votes, fractions, SHAPES, alpha))
    for question in (*SHAPES.question_names, ALL_QUESTIONS):
        for measure in ("loss", "crps", "mean_absolute_error", "rms_error"):
            row = rows[question, "", measure, "all"]
            assert row.floor < row.lower < row.value < row.upper < row.baseline
        row = rows[question, "", "accuracy", "all"]
        assert row.baseline < row.lower < row.value < row.upper < row.floor


def test_error_bars_cover_what_another_survey_gives():
    votes, fractions, alpha = (values[..., 3:] for values in made_up(8_000))
    population = by_name(tabulate_scores(votes, fractions, RINGS, alpha, config=ScoreConfig(resamples=0, draws=0)))
    covered = []
    for start in range(0, 8_000, 250):
        part = slice(start, start + 250)
        config = ScoreConfig(resamples=100, draws=0)
        rows = by_name(tabulate_scores(votes[part], fractions[part], RINGS, alpha[part], config=config))
        for name in (("ring", "", measure, "all") for measure in ("loss", "crps", "rms_error", "accuracy")):
            covered.append(rows[name].lower <= population[name].value <= rows[name].upper)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.06)


def test_the_bootstrap_scatter_of_a_mean_is_its_standard_error():
    weights = bootstrap_weights(500, 2000, seed=1)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1, dtype=int) == 500).all()
    values = np.random.default_rng(0).random(500)
    means = weights[1:] @ values / 500
    assert means.std() == pytest.approx(values.std() / np.sqrt(500), rel=0.06)
    np.testing.assert_array_equal(weights, bootstrap_weights(500, 2000, seed=1))
    assert (weights[1:] != bootstrap_weights(500, 2000, seed=2)[1:]).mean() > 0.5


def test_same_seed_same_table_and_no_resamples_no_error_bars():
    votes, fractions, alpha = made_up(60)
    assert tabulate_scores(votes, fractions, SHAPES, alpha) == tabulate_scores(votes, fractions, SHAPES, alpha)
    other = tabulate_scores(votes, fractions, SHAPES, alpha, config=ScoreConfig(seed=1))
    bars = [
        (one.value == two.value, one.lower == two.lower)
        for one, two in zip(tabulate_scores(votes, fractions, SHAPES, alpha), other, strict=True)
        if one.measure == "loss"
    ]
    assert bars == [(True, False)] * 3
    for row in tabulate_scores(votes, fractions, SHAPES, config=ScoreConfig(resamples=0, draws=0)):
        assert row.lower is row.upper is row.floor is None
        assert row.value is None or row.measure not in ("loss", "crps")


def test_no_votes_at_all():
    for row in tabulate_scores(np.zeros((3, 2)), np.full((3, 2), 0.5), RINGS, np.ones((3, 2))):
        assert row.galaxies == 0
        assert row.value is row.lower is row.baseline is row.floor is None


def test_bad_settings_and_arrays():
    for setting in (
        {"resamples": 1},
        {"resamples": -1},
        {"credibility": 1.0},
        {"min_volunteers": -1},
        {"min_volunteers": np.inf},
        {"min_share_asked": 1.1},
        {"draws": -1},
        {"seed": -1},
    ):
        with pytest.raises(SettingError, match=next(iter(setting))):
            ScoreConfig(**setting)
    with pytest.raises(SettingError, match="got 4 and 3 galaxies"):
        tabulate_scores(np.ones((4, 2)), np.ones((3, 2)), RINGS)
    with pytest.raises(SettingError, match="at least 1"):
        tabulate_scores(np.ones((0, 2)), np.ones((0, 2)), RINGS)
    with pytest.raises(SettingError, match="fractions: got nan"):
        tabulate_scores(np.ones((1, 2)), np.full((1, 2), np.nan), RINGS)
    with pytest.raises(SettingError, match="votes: got"):
        tabulate_scores([[1, -1]], [[0.5, 0.5]], RINGS)


@pytest.fixture
def tables(tmp_path):
    votes, fractions, alpha = made_up(80)
    names = {"id_str": [f"J{number}" for number in range(80)]}
    pd.DataFrame({**names, **dict(zip(SHAPES.label_cols, votes.T, strict=True))}).to_csv(tmp_path / "c.csv")
    columns = {f"{label}_fraction": fractions[:, index] for index, label in enumerate(SHAPES.label_cols)}
    for index, label in enumerate(SHAPES.label_cols):
        columns |= {f"{label}_concentration_{sample}": alpha[:, sample, index] for sample in range(2)}
    pd.DataFrame({**names, **columns}).to_parquet(tmp_path / "p.parquet")
    return tmp_path


def test_files_hold_the_same(tables):
    scores = evaluate(
        tables / "p.parquet",
        tables / "c.csv",
        tables / "m.json",
        schema=SHAPES,
        table_loc=tables / "m.csv",
        latex_loc=tables / "m.tex",
        roc_loc=tables / "roc.csv",
    )
    assert json.loads((tables / "m.json").read_text()) == scores
    assert scores["settings"]["min_volunteers"] == 34
    frame = pd.read_csv(tables / "m.csv", keep_default_na=False, na_values={"value": "", "floor": "", "lower": ""})
    assert list(frame.columns) == list(ScoreRow.__dataclass_fields__)
    assert not frame.duplicated(["question", "answer", "measure", "subset"]).any()
    for row, written in zip(scores["measures"], frame.to_dict("records"), strict=True):
        assert (row["question"], row["measure"]) == (written["question"], written["measure"])
        assert written["value"] == (
            pytest.approx(row["value"]) if row["value"] is not None else pytest.approx(np.nan, nan_ok=True)
        )
    roc = pd.read_csv(tables / "roc.csv")
    areas = {row["answer"]: row["value"] for row in scores["measures"] if row["measure"] == "auc"}
    for (_, answer), curve in roc.groupby(["question", "answer"]):
        area = integrate.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        assert area == pytest.approx(areas[answer])
    assert set(roc["answer"]) == {answer for answer, area in areas.items() if area is not None}
    text = (tables / "m.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\bottomrule") == text.count(r"\end{tabular}") == 3
    for body in re.findall(r"\\begin\{tabular\}\{(l[r]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in body[1].splitlines() if line.endswith(r"\\")]
        assert {line.count("&") for line in lines} == {len(body[0]) - 1}


@pytest.mark.parametrize("volunteers", ["34", "41"])
def test_the_command_prints_tables_that_fit_a_terminal(tables, monkeypatch, volunteers):
    monkeypatch.setenv("COLUMNS", "80")
    (tables / "shapes.toml").write_text(
        '[[question]]\nname = "shape"\nanswers = ["round", "flat", "none"]\n'
        '[[question]]\nname = "tilt"\nanswers = ["up", "down"]\nasked_after = ["shape_flat"]\n'
    )
    command = ["evaluate", "--predictions", tables / "p.parquet", "--catalog", tables / "c.csv"]
    command += ["--save-loc", tables / "m.json", "--schema", tables / "shapes.toml"]
    command += ["--min-volunteers", volunteers, "--resamples", "20", "--draws", "2", "--min-share-asked", "0.4"]
    command += ["--credibility", "0.5", "--seed", "3", "--roc-loc", tables / "r.parquet"]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    assert ("No classification table: no galaxy has at least 41" in result.output) == (volunteers == "41")
    assert ("precision" in result.output) == (volunteers == "34")
    assert "±: half of the bootstrap interval of 50%" in result.output
    written = json.loads((tables / "m.json").read_text())
    config = ScoreConfig(20, 0.5, float(volunteers), 0.4, 2, 3)
    assert written["settings"] == dataclasses.asdict(config)
    row = next(row for row in written["measures"] if row["measure"] == "loss")
    assert f"{row['value']:.3f}" in result.output
    assert f"{(row['upper'] - row['lower']) / 2:.3f}" in result.output
    assert max(map(len, result.output.replace(str(tables), "").splitlines())) <= 80


def test_the_command_has_the_defaults_of_python():
    parameters = inspect.signature(evaluate_command).parameters
    for field in dataclasses.fields(ScoreConfig):
        assert parameters[field.name].default == field.default


def test_a_table_that_cannot_be_written_is_refused_before_the_work(tables):
    with pytest.raises(SettingError, match=r"m\.xlsx"):
        evaluate(tables / "p.parquet", tables / "c.csv", tables / "m.json", schema=SHAPES, table_loc=tables / "m.xlsx")
    files = {name: tables / name for name in ("p.parquet", "c.csv", "m.json")}
    for wrong in (
        {"table_loc": files["c.csv"]},
        {"roc_loc": tables / "x" / ".." / "p.parquet"},
        {"table_loc": tables / "m.csv", "roc_loc": tables / "m.csv"},
    ):
        with pytest.raises(SettingError, match=r"_loc: got .* where another table is or goes"):
            evaluate(*files.values(), schema=SHAPES, **wrong)
    assert not files["m.json"].exists()


def test_latex_escapes_names():
    row = ScoreRow("50%_&_odd", "", "accuracy", "relevant", 1, 0.5, None, None, None, None)
    assert r"50\% \& Odd & 1 & $0.500$ & --" in make_latex([row], ScoreConfig())
