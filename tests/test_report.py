"""The report: one page that needs nothing else, the right galaxies in it, and figures fit for papers."""

import json
import re
import shutil
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import typer
from conftest import make_model
from matplotlib.figure import Figure
from typer.testing import CliRunner

from zoobot import schemas
from zoobot.cli.report import report
from zoobot.data import tables
from zoobot.errors import ModelError, PredictionError, SettingError
from zoobot.estimators import checkpoint
from zoobot.predictions.catalogue import make_catalogue
from zoobot.predictions.evaluate import evaluate
from zoobot.report import plots
from zoobot.report.embed import embed_figure
from zoobot.report.galaxies import GalaxyPosterior, Titles, mean_width, pick, share_asked, walk
from zoobot.report.page import make_report
from zoobot.stats.agreement import confusion_matrix, reliability
from zoobot.stats.calibration import Estimate, PitHistogram
from zoobot.stats.classification import roc_curve

VOID = {"meta", "br", "img", "hr", "link", "input", "circle", "path"}


class Balance(HTMLParser):
    """Checks that tags are closed in order, and gathers what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.gather(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        self.gather(tag, attrs)

    def gather(self, tag, attrs):
        assert tag not in ("script", "link", "iframe")
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def check_page(path):
    """Return the text of a page that is whole and loads nothing."""
    text = path.read_text(encoding="utf-8")
    page = Balance()
    page.feed(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert all(source.startswith(("#", "data:image/")) for source in page.sources)
    assert {source[1:] for source in page.sources if source.startswith("#")} <= set(page.ids)
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert len(text) < 5e6
    return text


def section(text, name):
    start = text.index(f'<section id="{name}">')
    return text[start : text.index("</section>", start)]


@pytest.fixture(scope="module")
def votes(catalog, schema):
    return pd.read_csv(catalog, dtype={"id_str": str})[schema.label_cols].to_numpy(float)


@pytest.fixture(scope="module")
def table(catalog, schema, votes):
    """Predictions that know the votes well, save for the last galaxy: there they are sure of the opposite."""
    alpha = 1 + np.repeat(votes[:, None], 3, axis=1) * [[[2.0], [3.0], [4.0]]]
    alpha[-1] = 1 + 30 * (votes[-1] == 0)
    galaxies = pd.read_csv(catalog, dtype={"id_str": str})
    return make_catalogue(galaxies["id_str"], galaxies["file_loc"], alpha.astype(np.float32), schema)


@pytest.fixture(scope="module")
def predictions(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("p") / "predictions.parquet"
    table.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def model(schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    checkpoint.save_model(make_model(schema), folder, {"data": {"train": {"galaxies": 4321}}})
    losses = pd.DataFrame({"epoch": [1, 2], "train_loss": [5.0, 4.0], "test_loss": [5.5, 4.5]})
    losses.to_csv(folder / "history.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def page(predictions, catalog, model, tmp_path_factory):
    save_loc = tmp_path_factory.mktemp("report") / "report.html"
    assert make_report(predictions, catalog, save_loc, checkpoint_dir=model, galaxies=3) == save_loc
    return check_page(save_loc)


def test_the_page_says_what_was_predicted_by_what(page, schema):
    head = page[: page.index("<main>")]
    for fact in ("40 galaxies", "test_resnet", "4,321 galaxies", "3 samples", schema.name, "2 questions, 5 answers"):
        assert fact in head
    assert "losses after each of 2 epochs" in section(page, "learning")


def test_galaxies_come_with_images_paths_and_votes(page):
    for name in ("typical", "best", "worst", "uncertain"):
        cards = section(page, name)
        assert cards.count("<article") == cards.count('<img src="data:image/jpeg') == 3
    assert "of 10" in section(page, "best")
    assert 'class="absent"' not in page


def test_the_worst_is_the_galaxy_that_was_got_wrong(page, table):
    worst = section(page, "worst")
    assert re.findall(r"<h4>(\w+)<span>", worst)[0] == table["id_str"].iloc[-1]
    assert "Costliest" in worst
    assert table["id_str"].iloc[-1] not in section(page, "best")


def test_scores_stand_beside_the_baseline_and_the_better_is_emphasised(page, predictions, catalog, schema):
    rows = dict(re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', section(page, "scores"), re.S))
    assert list(rows) == ["Shape", "Tilt", "All questions"]
    scores = evaluate(predictions, catalog, schema=schema)["all_questions"]
    assert scores["rms_error"] < scores["baseline_rms_error"]
    better = f'<b class="model">{scores["rms_error"]:.3f}</b><small>{scores["baseline_rms_error"]:.3f}</small>'
    assert better in rows["All questions"]


def test_calibration_is_told_of_each_question_and_all(page, votes):
    calibration = section(page, "calibration")
    rows = dict(re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', calibration, re.S))
    assert list(rows) == ["Shape", "Tilt", "All questions"]
    assert f"<td>{votes[:, 2:].any(axis=1).sum()}</td>" in rows["Tilt"]
    assert len(re.findall(r"\d\d\.\d%", rows["All questions"])) == 2
    assert calibration.count("<svg") == 4


def test_questions_have_roc_curves_of_answers_that_some_lead(page, votes):
    questions = section(page, "questions")
    assert questions.count("ROC curves of ") == 2
    assert "The other answer mirrors this one." in questions
    curve = roc_curve(votes[:, 0] >= votes[:, 1], votes[:, 0] - votes[:, 1])
    axes = plots.draw_roc({"round": curve}).axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "1.000  round"


def test_without_concentrations_there_are_intervals_and_errors(table, catalog, schema, tmp_path):
    kept = [name for name in table.columns if "_concentration" not in name]
    table[kept].to_csv(tmp_path / "p.csv", index=False)
    text = check_page(make_report(tmp_path / "p.csv", catalog, tmp_path / "r.html", schema=schema, galaxies=1))
    assert "no loss" in text
    assert "mean error" in section(text, "worst")
    assert re.findall(r"<h4>(\w+)<span>", section(text, "worst"))[0] == table["id_str"].iloc[-1]
    assert 'id="learning"' not in text
    assert "calibration" not in text


def test_missing_images_leave_a_note_and_shards_are_not_read_as_images(table, catalog, schema, tmp_path):
    votes = pd.read_csv(catalog, dtype={"id_str": str})
    votes.assign(file_loc="gone.png").to_csv(tmp_path / "c.csv", index=False)
    table.assign(file_loc="test-00000-of-00001.tfrecord").to_csv(tmp_path / "p.csv", index=False)
    text = check_page(
        make_report(tmp_path / "p.csv", tmp_path / "c.csv", tmp_path / "r.html", schema=schema, galaxies=1)
    )
    assert text.count("no image: cannot read image") == text.count("<article")
    assert "gone.png" in text
    votes.drop(columns="file_loc").to_csv(tmp_path / "c.csv", index=False)
    text = check_page(
        make_report(tmp_path / "p.csv", tmp_path / "c.csv", tmp_path / "r.html", schema=schema, galaxies=1)
    )
    assert "no image: no file_loc" in text


def test_images_lie_beside_the_catalog_or_where_they_were_predicted_from(table, catalog, schema, tmp_path, monkeypatch):
    votes = pd.read_csv(catalog, dtype={"id_str": str})
    votes.drop(columns="file_loc").to_csv(tmp_path / "c.csv", index=False)
    monkeypatch.chdir(catalog.parent)
    here = table.assign(file_loc=[f"images/{name}.png" for name in table["id_str"]])
    here.to_csv(tmp_path / "p.csv", index=False)
    text = make_report(tmp_path / "p.csv", tmp_path / "c.csv", tmp_path / "r.html", schema=schema).read_text()
    assert "no image:" not in text


def test_words_in_figures_stay_as_they_are():
    figure = Figure()
    figure.text(0.5, 0.5, "#0072b2 of 1.23456789 for $5 or $6", parse_math=False)
    assert "#0072b2 of 1.23456789 for $5 or $6" in embed_figure(figure, "words")


@pytest.mark.parametrize("content", ["", "epoch,train_loss,test_loss\n", "a,b\n1,2\n", "\x00\x01"])
def test_a_damaged_history_is_named(predictions, catalog, model, schema, tmp_path, content):
    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "m" / "history.csv").write_text(content)
    with pytest.raises(ModelError, match=r"history\.csv"):
        make_report(predictions, catalog, tmp_path / "r.html", checkpoint_dir=tmp_path / "m")


@pytest.mark.parametrize("change", [{"model": {}}, {"metadata": {"data": None}}, {"versions": []}])
def test_a_damaged_config_is_named_or_does_without(predictions, catalog, model, tmp_path, change):
    shutil.copytree(model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | change))
    if "metadata" in change:
        make_report(predictions, catalog, tmp_path / "r.html", checkpoint_dir=tmp_path / "m", galaxies=1)
    else:
        with pytest.raises(ModelError, match=r"config\.json"):
            make_report(predictions, catalog, tmp_path / "r.html", checkpoint_dir=tmp_path / "m")


def test_intervals_must_be_some_and_concentrations_may_be_huge(table, catalog, schema, tmp_path):
    broken = table.assign(shape_round_fraction_lower=np.nan)
    broken.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(PredictionError, match="intervals"):
        make_report(tmp_path / "p.csv", catalog, tmp_path / "r.html", schema=schema)
    sure = table.assign(**{name: 1e9 for name in table if "shape_round_concentration" in name})
    sure.to_csv(tmp_path / "p.csv", index=False)
    make_report(tmp_path / "p.csv", catalog, tmp_path / "r.html", schema=schema, galaxies=1)


def test_nothing_but_a_page_is_written_over(predictions, catalog, schema):
    before = catalog.read_bytes()
    with pytest.raises(SettingError, match="html"):
        make_report(predictions, catalog, catalog, schema=schema)
    assert catalog.read_bytes() == before


def test_names_are_text_and_not_markup(table, catalog, schema, tmp_path):
    name = '<script>"&\\1'
    votes = pd.read_csv(catalog, dtype={"id_str": str})
    votes.assign(id_str=name + votes["id_str"]).to_csv(tmp_path / "c.csv", index=False)
    table.assign(id_str=name + table["id_str"]).to_csv(tmp_path / "p.csv", index=False)
    text = check_page(
        make_report(tmp_path / "p.csv", tmp_path / "c.csv", tmp_path / "r.html", schema=schema, galaxies=1)
    )
    assert "&lt;script&gt;" in text


def test_truth_that_is_the_prediction_agrees_in_full(table, predictions, catalog, schema, tmp_path):
    truth = {f"{name}_probability": table[f"{name}_fraction"] for name in schema.label_cols}
    pd.DataFrame({"id_str": table["id_str"], **truth})[::-1].to_parquet(tmp_path / "truth.parquet")
    save_loc = make_report(predictions, catalog, tmp_path / "r.html", schema=schema, truth=tmp_path / "truth.parquet")
    rows = re.findall(r"<tr><th scope.*?</tr>", section(check_page(save_loc), "truth"))
    assert len(rows) == 2
    assert all("<td>1.000</td><td>0.000</td><td>100%</td>" in row for row in rows)


def test_bad_input_writes_nothing(table, predictions, catalog, schema, tmp_path):
    truth, empty, save_loc = tmp_path / "truth.csv", tmp_path / "empty.csv", tmp_path / "r.html"
    with pytest.raises(SettingError, match="galaxies"):
        make_report(predictions, catalog, save_loc, schema=schema, galaxies=0)
    table[["id_str"]].to_csv(truth, index=False)
    with pytest.raises(PredictionError, match=r"truth.* lacks shape_round_probability"):
        make_report(predictions, catalog, save_loc, schema=schema, truth=truth)
    table[["id_str"]].assign(**{f"{name}_probability": 2.0 for name in schema.label_cols}).to_csv(truth, index=False)
    with pytest.raises(PredictionError, match="outside 0 to 1"):
        make_report(predictions, catalog, save_loc, schema=schema, truth=truth)
    table[["id_str"]].assign(**dict.fromkeys(schema.label_cols, 0)).to_csv(empty, index=False)
    with pytest.raises(PredictionError, match="has no votes"):
        make_report(predictions, empty, save_loc, schema=schema)
    table.drop(columns="tilt_lying_fraction_lower").to_csv(empty, index=False)
    with pytest.raises(PredictionError, match="lack intervals: tilt_lying_fraction_lower"):
        make_report(empty, catalog, save_loc, schema=schema)
    assert not save_loc.exists()


def test_the_command(predictions, catalog, tree, tmp_path):
    app = typer.Typer()
    app.command()(report)
    arguments = [
        "--predictions",
        predictions,
        "--catalog",
        catalog,
        "--schema",
        tree,
        "--save-loc",
        tmp_path / "r.html",
    ]
    result = CliRunner().invoke(app, [*map(str, arguments), "--galaxies", "1"])
    assert result.exit_code == 0, result.output
    assert "r.html" in result.output
    assert check_page(tmp_path / "r.html").count("<article") == 4


def test_the_walk_follows_leading_answers_whatever_the_order_of_questions():
    schema = schemas.Schema.from_dict(
        {
            "name": "backwards",
            "question": [
                {"name": "arms", "answers": ["one", "two"], "asked_after": ["shape_flat"]},
                {"name": "odd", "answers": ["yes", "no"], "asked_after": ["shape_round", "shape_flat"]},
                {"name": "shape", "answers": ["round", "flat"]},
            ],
        }
    )

    def names(values):
        return [(question.name, leading) for question, leading in walk(schema, np.array(values, float))]

    assert names([1, 3, 5, 2, 1, 4]) == [("arms", 1), ("odd", 0), ("shape", 1)]
    assert names([1, 3, 5, 2, 4, 1]) == [("odd", 0), ("shape", 0)]
    assert names([0, 0, 0, 2, 1, 4]) == [("odd", 1), ("shape", 1)]
    assert names([0, 0, 0, 0, 0, 0]) == []


def test_share_asked_goes_by_the_most_votes_for_a_question_of_everyone(schema):
    votes = np.array([[5, 5, 1, 2, 0], [0, 0, 0, 0, 0], [8, 0, 0, 0, 0]], dtype=float)
    np.testing.assert_allclose(share_asked(votes, schema), [[1, 0.3], [0, 0], [1, 0]])


def test_mean_width_counts_questions_as_they_are_asked(schema):
    lower, upper = np.zeros((1, 5)), np.array([[0.2, 0.4, 0.1, 0.8, 0.3]])
    assert mean_width(lower, upper, np.array([[1.0, 0.5]]), schema)[0] == pytest.approx((0.4 + 0.5 * 0.8) / 1.5)


def test_pick_takes_each_kind_once_before_any_twice():
    assert pick(range(6), lambda galaxy: galaxy % 2, 3) == [0, 1, 2]
    assert pick(range(6), lambda galaxy: galaxy, 2) == [0, 1]
    assert pick([], str, 2) == []


@pytest.mark.parametrize("name", schemas.available())
def test_every_tree_can_be_drawn_with_titles_that_differ(name):
    schema = schemas.load(name)
    titles = [Titles(schema).question(question) for question in schema.questions]
    assert len(set(titles)) == len(titles)
    assert all(titles)


@pytest.fixture
def figures(schema):
    rng = np.random.default_rng(0)
    votes, fractions = rng.integers(0, 9, (60, 2)), rng.dirichlet([1, 1], 60)
    middle = np.full(5, 0.4)
    galaxy = GalaxyPosterior(middle, middle - 0.2, middle + 0.2, rng.uniform(0.5, 9, (3, 5)), np.array([4, 8, 1, 0, 0]))
    return {
        "posteriors": plots.draw_posteriors(galaxy, schema, schema.questions),
        "confusion": plots.draw_confusion(confusion_matrix(votes, fractions), ["yes", "no"]),
        "reliability": plots.draw_reliability(reliability(votes, fractions)),
        "coverage": plots.draw_coverage([0.5, 0.9], [Estimate(0.4, 0.02), Estimate(0.8, np.nan)]),
        "pit": plots.draw_pit(PitHistogram(rng.uniform(0.5, 3, 10), np.full(10, 0.1), 60), "Shape", small=True),
        "fractions": plots.draw_fractions(fractions[:, 0], fractions[:, 1], "yes"),
    }


def test_figures_are_saved_as_pdf_and_leave_settings_alone(figures, tmp_path):
    assert mpl.rcParams["font.size"] == mpl.rcParamsDefault["font.size"]
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.pdf")
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert figure.get_figwidth() < 7  # inches, a journal's page


def test_figures_show_votes_and_counts(figures):
    texts = {name: [text.get_text() for text in figure.axes[0].texts] for name, figure in figures.items()}
    assert {"4 of 12", "8 of 12", "1 of 1", "Shape", "lying", "100% asked", "40% asked"} <= set(texts["posteriors"])
    counts = [int(text) for text in texts["confusion"] if text.isdigit()]
    assert 50 < sum(counts) <= 60


def test_nothing_of_a_figure_reaches_beyond_its_edges(figures):
    for name, figure in figures.items():
        figure.draw_without_rendering()
        box, size = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 > -0.03, name
        assert box.y0 > -0.03, name
        assert box.x1 < size[0] + 0.03, name
        assert box.y1 < size[1] + 0.03, name


def test_an_embedded_figure_is_the_same_each_time_and_takes_the_pages_colours(figures):
    first, again = (embed_figure(figures["posteriors"], 'a "galaxy"') for _ in range(2))
    assert first == again
    assert "var(--model)" in first
    assert "var(--volunteers)" in first
    assert plots.COLOURS["model"] not in first
    assert 'aria-label="a &quot;galaxy&quot;"' in first


def test_real_galaxies_make_a_page(shared_data, tmp_path):
    folder = shared_data / "gz2_counts"
    votes = tables.read_table(folder / "catalog.csv")[:80]
    schema = schemas.load("gz2")
    rng = np.random.default_rng(0)
    alpha = rng.uniform(1, 9, (len(votes), 2, len(schema.label_cols))).astype(np.float32)
    made = make_catalogue(votes["id_str"], votes["file_loc"], alpha, schema)
    made.to_parquet(tmp_path / "p.parquet")
    names = [f"{name}_fraction" for name in schema.label_cols]
    truth = made[["id_str", *names]].rename(columns=lambda name: name.replace("_fraction", "_probability"))
    truth.iloc[:, 6:] = np.nan  # of two questions only
    truth.to_parquet(tmp_path / "t.parquet")
    save_loc = tmp_path / "r.html"
    make_report(tmp_path / "p.parquet", folder / "catalog.csv", save_loc, truth=tmp_path / "t.parquet", galaxies=1)
    text = check_page(save_loc)
    assert "Smooth or featured" in text
    assert 'class="absent"' not in text
    assert section(text, "truth").count("<figure>") in (1, 2)
