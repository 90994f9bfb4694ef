"""``zoobot info``: what a model is, for people and for machines, and a line for what is none."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from zoobot.cli import main as cli
from zoobot.estimators import checkpoint
from zoobot.schemas import Schema


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run_info(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["zoobot", "info", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run_info


def test_for_machines(run: Callable[..., int], model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model_dir, "--json") == 0
    found, config = json.loads(capsys.readouterr().out), checkpoint.load_config(model_dir)
    for name in ("model", "schema", "weights_sha256", "versions"):
        assert found[name] == config[name]
    for name in ("training", "data", "metrics"):
        assert found[name] == config["metadata"][name]
    assert (found["questions"], found["answers"]) == (2, 5)
    tensors = safetensors.torch.load_file(model_dir / "model.safetensors")
    trained = {name: tensor for name, tensor in tensors.items() if "running_" not in name and "num_batches" not in name}
    assert found["parameters"]["all"] == sum(tensor.numel() for tensor in trained.values())
    assert found["parameters"]["head"] == sum(t.numel() for name, t in trained.items() if name.startswith("head."))
    assert found["calibration"] is None


def test_for_people(
    run: Callable[..., int], model_dir: Path, schema: Schema, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "[bold]m"  # which is no markup
    shutil.copytree(model_dir, folder)
    assert run(folder) == 0
    out = capsys.readouterr().out
    assert "[bold]m" in out
    for text in (f"{schema.name}, 2 questions, 5 answers", "test_resnet", "32 × 32", "random weights", "galaxies 29"):
        assert text in out


def test_a_finetuned_model_tells_its_scores(
    run: Callable[..., int], model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_dir, tmp_path / "m")
    checkpoint.update_metadata(tmp_path / "m", {"finetuning": {"task": "classification", "scores": {"auc": 0.875}}})
    assert run(tmp_path / "m") == 0
    assert "auc 0.875" in capsys.readouterr().out
    assert run(tmp_path / "m", "--json") == 0
    assert json.loads(capsys.readouterr().out)["finetuning"]["task"] == "classification"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "torn"),
        (lambda folder: (folder / "calibration.json").write_text("[]"), "is no table"),
    ],
)
def test_damaged_folders(
    run: Callable[..., int],
    model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    shutil.copytree(model_dir, tmp_path / "m")
    damage(tmp_path / "m")
    assert run(tmp_path / "m") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x08\x07"])
def test_files_that_are_none_of_ours(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "m.onnx").write_bytes(content)
    assert run(tmp_path / "m.onnx") == 2
    assert "m.onnx: " in capsys.readouterr().err
