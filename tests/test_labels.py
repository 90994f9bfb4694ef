"""What a catalog's labels are taken for."""

import numpy as np
import pandas as pd
import pytest
import torch

from zoobot import schemas
from zoobot.errors import CatalogError, SettingError
from zoobot.training.labels import assign_folds, find_scale, make_loss, read_labels


def table(values, **others):
    return pd.DataFrame({"id_str": [f"g{n}" for n in range(len(values))], "kind": values, **others})


@pytest.mark.parametrize(
    ("values", "task", "cols"),
    [
        ([0, 1, 1, 0], "classification", ["kind_0", "kind_1"]),
        ([0.0, 1.0, np.nan, 0.0, 1.0], "classification", ["kind_0", "kind_1"]),
        (["S0", "E", "S0", "E"], "classification", ["kind_E", "kind_S0"]),
        ([True, False, True, False], "classification", ["kind_False", "kind_True"]),
        ([0.1, 0.2, 0.7, 0.4], "regression", ["kind"]),
        (list(range(30)), "regression", ["kind"]),
    ],
)
def test_the_task_is_found(values, task, cols):
    labels = read_labels(table(values), ["kind"])
    assert (labels.task, labels.label_cols) == (task, cols)
    assert labels.unlabelled == sum(pd.isna(values))
    assert len(labels) + labels.unlabelled == len(values)


def test_a_task_that_is_given_wins():
    assert read_labels(table([0, 1, 2, 3]), ["kind"], task="regression").task == "regression"
    many = read_labels(table([0.5, 1.5, 2.5, 0.5]), ["kind"], task="classification")
    assert many.label_cols == ["kind_0.5", "kind_1.5", "kind_2.5"]


def test_votes_without_any_are_left_out_and_counted():
    schema = schemas.load("gz_rings")
    votes = dict(zip(schema.label_cols, ([1, 0, 3, 4, 1], [2, 0, 0, 1, 1]), strict=True))
    labels = read_labels(table(list("abcde"), **votes), schema=schema)
    assert labels.values.tolist() == [[1, 2], [3, 0], [4, 1], [1, 1]]
    assert labels.unlabelled == 1


@pytest.mark.parametrize(
    ("values", "settings", "complaint"),
    [
        ([1, 1, 1, 1], {"task": "classification"}, "one, '1' classes"),
        (["a", "b", None, ""], {}, "only 2"),
        ([0.5, "x", 0.25, 0.75], {"task": "regression"}, "row 2.*'x' is no finite number"),
        ([0.5, np.inf, 0.25, 0.75], {"task": "regression"}, "row 2"),
        ([0.5, 0.5, 0.5, 0.5], {"task": "regression"}, "nothing to learn"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(values, settings, complaint):
    with pytest.raises(CatalogError, match=complaint):
        read_labels(table(values), ["kind"], **settings)


def test_contradictions_are_refused():
    catalog = table([0, 1, 0, 1])
    with pytest.raises(CatalogError, match="lacks sort; its columns are id_str, kind"):
        read_labels(catalog, ["sort"])
    with pytest.raises(SettingError, match="needs a schema"):
        read_labels(catalog, ["kind"], task="votes")
    with pytest.raises(SettingError, match="needs a schema"):
        read_labels(catalog, task="regression", schema=schemas.load("gz_rings"))
    with pytest.raises(SettingError, match="either"):
        read_labels(catalog)
    with pytest.raises(SettingError, match="one column"):
        read_labels(catalog.assign(size=1), ["kind", "size"], task="classification")
    with pytest.raises(SettingError, match="one of"):
        read_labels(catalog, ["kind"], task="segmentation")


def test_folds_share_out_each_class_whatever_the_order():
    labels = read_labels(table([0] * 20 + [1] * 5), ["kind"])
    folds = assign_folds(labels, 5)
    assert all(labels.values[folds == fold].sum(axis=0).tolist() == [4, 1] for fold in range(5))
    turned = read_labels(table([0] * 20 + [1] * 5).iloc[::-1], ["kind"])
    same = dict(zip(turned.galaxies["id_str"], assign_folds(turned, 5), strict=True))
    assert [same[name] for name in labels.galaxies["id_str"]] == folds.tolist()
    with pytest.raises(SettingError):
        assign_folds(labels, 26)


def test_balance_lets_classes_count_alike():
    labels = read_labels(table([0] * 9 + [1]), ["kind"])
    values = torch.from_numpy(labels.values)
    losses = make_loss(labels, np.arange(10), balance=True)(values, torch.full((10, 2), 0.5))
    assert losses[:9].sum().item() == pytest.approx(losses[9].item(), rel=1e-6)


@pytest.mark.parametrize("unit", [1e-17, 1.0, 1e6])
def test_the_loss_of_numbers_is_the_same_in_any_units(unit):
    labels = read_labels(table((unit * np.array([1.0, 2, 4, 7])).tolist()), ["kind"], task="regression")
    values = torch.from_numpy(labels.values)
    losses = make_loss(labels, np.arange(4))(values, torch.full((4, 1), 3.5 * unit))
    assert losses.mean().item() == pytest.approx(1, rel=1e-5)  # the mean is all that is known: its variance


def test_numbers_that_are_all_alike_have_a_scale_all_the_same():
    assert find_scale(np.full((3, 1), 7, np.float32)).tolist() == [1]


@pytest.mark.parametrize("settings", [{"balance": True}, {"smoothing": 0.1}])
def test_what_is_for_classes_alone_is_refused_for_numbers(settings):
    labels = read_labels(table([0.1, 0.2, 0.7, 0.4]), ["kind"])
    with pytest.raises(SettingError, match="the task is regression"):
        make_loss(labels, np.arange(4), **settings)


@pytest.mark.parametrize(
    "targets", [["id_str"], ["file_loc"], ["bad_pixels"], ["fold"], ["kind", "kind"], ["kind", "kind_predicted"]]
)
def test_names_that_predictions_have_for_something_else_are_refused(targets):
    columns = {name: [0.1, 0.2, 0.7, 0.4] for name in targets if name != "id_str"}
    with pytest.raises(SettingError, match="tables of predictions"):
        read_labels(table([0.1, 0.2, 0.7, 0.4]).assign(**columns), targets)


@pytest.mark.parametrize("name", ["x\ny", "L" * 400, "a\x1b[2J"])
def test_classes_that_no_answer_can_be_called_are_refused(name):
    with pytest.raises(CatalogError, match="column kind: classes cannot have such names"):
        read_labels(table(["a", name, "a", name]), ["kind"])


def test_classes_may_have_commas_brackets_and_any_script():
    names = ["[bold]a[/x]", "a, b", "ñ ☃", "星系"]
    assert read_labels(table(names), ["kind"]).label_cols == [f"kind_{name}" for name in names]
