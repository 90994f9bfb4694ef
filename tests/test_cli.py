"""The command line from end to end: the guide's steps, the examples, and every bad input in a line or two."""

import inspect
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from zoobot import schemas
from zoobot.cli import main as cli
from zoobot.data import shard_writing
from zoobot.demo import DemoConfig
from zoobot.errors import SettingError
from zoobot.estimators import define_model
from zoobot.predictions import predict_on_images
from zoobot.simulate.survey import SurveyConfig
from zoobot.training import training_config


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["zoobot", *map(str, arguments)])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_the_whole_journey(monkeypatch, capsys, catalog, tree, tmp_path):
    shards, model, table = tmp_path / "shards", tmp_path / "model", tmp_path / "p.parquet"
    steps = [
        f"create-shards --labelled-catalog {catalog} --shard-dir {shards} --schema {tree} --img-size 32 --greyscale",
        f"check-shards {shards}",
        f"train --shard-dir {shards} --save-dir {model} --encoder test_resnet --epochs 2 --batch-size 16",
        f"predict --checkpoint-dir {model} --catalog {catalog} --save-loc {table}",
        f"evaluate --predictions {table} --catalog {catalog} --schema {tree} --save-loc {tmp_path / 'm.json'}",
    ]
    for step in steps:
        code, out, err = run(monkeypatch, capsys, *step.split())
        assert code == 0, err
        assert "Error" not in err
    assert "tilt" in out
    assert len(pd.read_parquet(table)) == 40


@pytest.mark.slow
def test_the_demo_makes_all_it_says_and_goes_on_where_it_stopped(monkeypatch, capsys, tmp_path):
    command = f"demo --save-dir {tmp_path / 'd'} --galaxies 40 --img-size 32 --train-minutes 0.05"
    code, out, err = run(monkeypatch, capsys, *command.split())
    assert code == 0, err
    report = tmp_path / "d" / "report.html"
    assert out.rstrip().endswith(str(report))
    assert "Against the truth" in report.read_text(encoding="utf-8")
    assert len(pd.read_parquet(tmp_path / "d" / "predictions.parquet")) == 8
    before = (tmp_path / "d" / "model" / "model.safetensors").read_bytes()
    report.unlink()
    code, out, err = run(monkeypatch, capsys, *command.split())
    assert code == 0, err
    assert report.exists()
    assert (tmp_path / "d" / "model" / "model.safetensors").read_bytes() == before
    code, out, err = run(monkeypatch, capsys, *command.split(), "--seed", "1")
    assert code == 2
    assert "another seed" in err
    (tmp_path / "d").rename(tmp_path / "moved")
    code, out, err = run(monkeypatch, capsys, *command.replace(f"{tmp_path / 'd'}", f"{tmp_path / 'moved'}").split())
    assert code == 0, err


def test_a_demo_does_not_fill_a_folder_of_somebody_elses(monkeypatch, capsys, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    code, _, err = run(monkeypatch, capsys, "demo", "--save-dir", tmp_path)
    assert code == 2
    assert "something else" in err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_next_commands_can_be_pasted(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "a b'c"
    code, out, err = run(
        monkeypatch, capsys, "simulate", "--save-dir", folder, "--galaxies", 1, "--img-size", 16, "--votes", 2
    )
    assert code == 0, err
    line = next(line for line in out.splitlines() if "create-shards" in line)
    assert str(folder / "catalog.csv") in shlex.split(line)


@pytest.mark.parametrize(
    "setting",
    [
        {"galaxies": 3},
        {"img_size": 8},
        {"train_minutes": 0.0},
        {"train_minutes": float("nan")},
        {"train_minutes": float("inf")},
        {"seed": -1},
    ],
)
def test_a_demo_too_small_to_show_anything_is_refused(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        DemoConfig(**setting)


@pytest.mark.slow
def test_the_examples_run(catalog, tree, tmp_path):
    examples = Path(__file__).parents[1] / "examples"
    steps = [
        f"create_shards.py --labelled-catalog {catalog} --shard-dir {tmp_path / 's'} --schema {tree} --img-size 32",
        f"train_model.py --shard-dir {tmp_path / 's'} --save-dir {tmp_path / 'm'} --epochs 1 --encoder test_resnet",
        f"make_predictions.py --checkpoint-dir {tmp_path / 'm'} --folder {catalog.parent / 'images'}"
        f" --save-loc {tmp_path / 'p.csv'}",
    ]
    for step in steps:
        script, *arguments = step.split()
        subprocess.run([sys.executable, str(examples / script), *arguments], check=True, cwd=tmp_path)
    assert len(pd.read_csv(tmp_path / "p.csv")) == 40


def test_schemas_are_listed_and_drawn(monkeypatch, capsys, tree):
    code, out, _ = run(monkeypatch, capsys, "schemas")
    assert code == 0
    assert all(name in out for name in schemas.available())
    code, out, _ = run(monkeypatch, capsys, "schemas", tree)
    assert code == 0
    assert out.index("shape") < out.index("tilt") < out.index("lying")


@pytest.mark.parametrize(
    "command",
    [
        "create-shards",
        "check-shards",
        "train",
        "predict",
        "evaluate",
        "schemas",
        "calibrate",
        "simulate",
        "demo",
        "report",
    ],
)
def test_every_command_has_help_with_an_example(monkeypatch, capsys, command):
    code, out, _ = run(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert f"zoobot {command}" in out


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (cli.train, training_config.TrainConfig),
        (cli.train, define_model.ModelConfig),
        (cli.train, define_model.get_model),
        (cli.predict, predict_on_images.PredictConfig),
        (cli.create_shards, shard_writing.ShardConfig),
        (cli.simulate, SurveyConfig),
        (cli.demo, DemoConfig),
    ],
)
def test_the_command_line_has_the_defaults_of_python(command, settings):
    missing = inspect.Parameter.empty
    defaults = {name: parameter.default for name, parameter in inspect.signature(settings).parameters.items()}
    if settings is define_model.ModelConfig:
        del defaults["encoder"], defaults["weights"]  # which get_model fills in
    parameters = inspect.signature(command).parameters
    shared = [name for name in parameters if defaults.get(name, missing) is not missing]
    assert len(shared) > 3
    assert {name: parameters[name].default for name in shared} == {name: defaults[name] for name in shared}


BAD_CATALOGS = {
    "no such file": None,
    "no rows": "id_str,file_loc,shape_round,shape_flat,tilt_upright,tilt_lying,tilt_unclear\n",
    "missing columns": "id_str,file_loc,shape_round\na,{image},1\n",
    "duplicate ids": "{header}\na,{image},1,1,1,1,1\na,{image},1,1,1,1,1\n",
    "missing id": "{header}\n,{image},1,1,1,1,1\n",
    "negative votes": "{header}\na,{image},-1,1,1,1,1\n",
    "missing votes": "{header}\na,{image},,1,1,1,1\n",
    "votes in words": "{header}\na,{image},many,1,1,1,1\n",
    "no such image": "{header}\na,nowhere.png,1,1,1,1,1\n",
}


@pytest.mark.parametrize("fault", BAD_CATALOGS)
def test_bad_catalogs(monkeypatch, capsys, catalog, tree, tmp_path, fault):
    path = tmp_path / "bad.csv"
    if (text := BAD_CATALOGS[fault]) is not None:
        header = "id_str,file_loc,shape_round,shape_flat,tilt_upright,tilt_lying,tilt_unclear"
        path.write_text(text.format(header=header, image=catalog.parent / "images" / "J0001.png"))
    code, _, err = run(
        monkeypatch,
        capsys,
        "create-shards",
        "--labelled-catalog",
        path,
        "--shard-dir",
        tmp_path / "s",
        "--schema",
        tree,
    )
    assert_clear(code, err)
    assert not (tmp_path / "s").exists()


def bad_commands(catalog: Path, tree: Path, shard_dir: Path, model_dir: Path, tmp_path: Path) -> dict[str, str]:
    create = f"create-shards --labelled-catalog {catalog} --schema {tree} --shard-dir"
    predict = f"predict --checkpoint-dir {model_dir} --save-loc {tmp_path / 'p.csv'}"
    evaluate = f"evaluate --catalog {catalog} --save-loc {tmp_path / 'm.json'} --predictions"
    (tmp_path / "empty").mkdir()
    (tmp_path / "cycle.toml").write_text(
        '[[question]]\nname = "a"\nanswers = ["x", "y"]\nasked_after = ["b_x"]\n'
        '[[question]]\nname = "b"\nanswers = ["x", "y"]\nasked_after = ["a_x"]\n'
    )
    (tmp_path / "catalog.txt").write_text("id_str file_loc")
    return {
        "unknown schema": f"create-shards --labelled-catalog {catalog} --shard-dir {tmp_path / 's'} --schema gz_decal",
        "cyclic tree": f"schemas {tmp_path / 'cycle.toml'}",
        "another schema's votes": f"{create} {tmp_path / 's'} --schema gz2",
        "suffix": f"create-shards --labelled-catalog {tmp_path / 'catalog.txt'} --shard-dir {tmp_path / 's'}",
        "eval size": f"{create} {tmp_path / 's'} --eval-size 40",
        "image size": f"{create} {tmp_path / 's'} --img-size 0",
        "encoding": f"{create} {tmp_path / 's'} --encoding gif",
        "image root": f"{create} {tmp_path / 's'} --image-root {tmp_path / 'nowhere'}",
        "other shards there": f"{create} {shard_dir} --img-size 31",
        "not shards": f"check-shards {tmp_path / 'empty'}",
        "train on nothing": f"train --shard-dir {tmp_path / 'empty'} --save-dir {tmp_path / 'm'}",
        "unknown encoder": f"train --shard-dir {shard_dir} --save-dir {tmp_path / 'm'} --encoder resnet19",
        "crop too large": f"train --shard-dir {shard_dir} --save-dir {tmp_path / 'm'} --crop-size 33",
        "a model is there": f"train --shard-dir {shard_dir} --save-dir {model_dir} --encoder test_resnet",
        "precision": f"train --shard-dir {shard_dir} --save-dir {tmp_path / 'm'} --precision half",
        "accelerator": f"train --shard-dir {shard_dir} --save-dir {tmp_path / 'm'} --accelerator quantum",
        "no model": f"predict --catalog {catalog} --save-loc {tmp_path / 'p.csv'} --checkpoint-dir {tree.parent}",
        "device": f"{predict} --catalog {catalog} --device quantum",
        "unwritable": f"predict --catalog {catalog} --save-loc {catalog / 'p.csv'} --checkpoint-dir {model_dir}",
        "a folder in the way": f"create-shards --labelled-catalog {catalog} --schema {tree} --shard-dir {catalog}",
        "no source": predict,
        "two sources": f"{predict} --catalog {catalog} --folder {tmp_path / 'empty'}",
        "no images": f"{predict} --folder {tmp_path / 'empty'}",
        "no folder": f"{predict} --folder {tmp_path / 'nowhere'}",
        "file format": f"{predict} --folder {catalog.parent / 'images'} --file-format tiff",
        "output suffix": f"predict --checkpoint-dir {model_dir} --catalog {catalog} --save-loc {tmp_path / 'p.xls'}",
        "no predictions": f"{evaluate} {tmp_path / 'p.csv'}",
        "not predictions": f"{evaluate} {catalog}",
    }


def test_bad_commands(monkeypatch, capsys, catalog, tree, shard_dir, model_dir, tmp_path):
    before = {
        path: path.read_bytes() for folder in (shard_dir, model_dir) for path in folder.rglob("*") if path.is_file()
    }
    for name, command in bad_commands(catalog, tree, shard_dir, model_dir, tmp_path).items():
        code, _, err = run(monkeypatch, capsys, *command.split())
        assert_clear(code, err, name)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.txt", "cycle.toml", "empty"]


def assert_clear(code: int, err: str, name: str = "") -> None:
    assert code == 2, f"{name}: {code} {err}"
    assert "Traceback" not in err, name
    assert err.startswith("Error: "), f"{name}: {err}"
    assert 20 < len(err) < 700, f"{name}: {err}"
    assert err.count("\n") <= 3, f"{name}: {err}"
