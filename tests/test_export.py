"""Exports: what ONNX gives is what torch gives, and a folder for the hub is a model folder still."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE
from torch import Tensor, nn

from zoobot import schemas
from zoobot.cli import main as cli
from zoobot.errors import ModelError, SettingError
from zoobot.estimators import checkpoint, hub_folder, onnx_export
from zoobot.estimators.augment import PREPROCESSES, Augment, AugmentConfig, register_preprocess
from zoobot.estimators.define_model import get_model
from zoobot.estimators.weights import read_weights
from zoobot.predictions.calibration_file import save_calibration
from zoobot.predictions.predict_on_images import predict
from zoobot.stats.recalibration import Recalibration

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "m.onnx"
    done = onnx_export.export_onnx(model_dir, path)
    assert done.path == path
    assert done.output == "concentrations"
    assert 0 <= done.difference < 1e-5
    return path


@pytest.fixture
def registries() -> Iterator[None]:
    before = dict(PREPROCESSES)
    yield
    PREPROCESSES.clear()
    PREPROCESSES.update(before)


def run_onnx(path: Path, images: Tensor) -> Any:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


@pytest.mark.parametrize(
    "sizes",
    [(32, 24, 24), (33, 24, 24), (64, 48, 16), (50, 47, 13), (20, 20, 31), (7, 7, 1)],
    ids=["slice", "half a pixel", "averaged by 3", "averaged by 3, not evenly", "enlarged", "to one pixel"],
)
@pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0,)), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))])
def test_the_preprocessing_is_two_matrix_products(sizes: tuple[int, int, int], mean: Any, std: Any) -> None:
    config = AugmentConfig(input_size=sizes[0], crop_size=sizes[1], resize_size=sizes[2], mean=mean, std=std)
    augment = Augment(config).eval()
    resize = onnx_export._SeparableResize(augment)
    torch.testing.assert_close(resize.matrix.sum(1), torch.ones(sizes[2]))
    images = torch.randint(0, 256, (3, sizes[0], sizes[0], 3), dtype=torch.uint8)
    torch.testing.assert_close(resize(images), augment(images), atol=2e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 17])
def test_any_number_of_images_at_a_time(exported: Path, model_dir: Path, count: int) -> None:
    images = torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = checkpoint.load_model(model_dir)(images)
    torch.testing.assert_close(torch.from_numpy(run_onnx(exported, images)), expected, atol=1e-3, rtol=0)


def test_the_file_says_what_it_is(exported: Path, model_dir: Path) -> None:
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [(each.name, each.type) for each in session.get_inputs()] == [("images", "tensor(uint8)")]
    assert [each.name for each in session.get_outputs()] == ["concentrations"]
    facts, config = onnx_export.read_onnx_facts(exported), checkpoint.load_config(model_dir)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["label_cols"]) == schemas.Schema.from_dict(facts["schema"]).label_cols
    for name in ("model", "schema", "weights_sha256", "versions"):
        assert facts[name] == config[name]


def test_the_file_does_not_tell_where_it_was_made(exported: Path) -> None:
    content = exported.read_bytes()
    for text in (onnx_export.__file__, str(Path(torch.__file__).parent), "site-packages"):
        assert text.encode() not in content


def test_an_export_that_differs_is_not_written(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_brightest", lambda config: 1)
    with pytest.raises(ModelError, match="differs from torch by up to"):
        onnx_export.export_onnx(model_dir, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class Own(nn.Module):
    """A preprocessing of one's own."""

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images.permute(0, 3, 1, 2).float().sqrt()


@pytest.mark.usefixtures("registries")
def test_a_preprocessing_of_ones_own_is_traced(tmp_path: Path) -> None:
    register_preprocess("own", Own)
    checkpoint.save_model(get_model(output_dim=3, input_size=SIZE, encoder="test_resnet", preprocess="own"), tmp_path)
    onnx_export.export_onnx(tmp_path, tmp_path / "m.onnx")
    images = torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = checkpoint.load_model(tmp_path)(images)
    torch.testing.assert_close(torch.from_numpy(run_onnx(tmp_path / "m.onnx", images)), expected, atol=1e-3, rtol=0)


def test_what_cannot_be_traced_is_told(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise RuntimeError("it depends on the data\nand so on")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ModelError, match=r"encoder test_resnet cannot be exported to ONNX \(it depends on the data\)"):
        onnx_export.export_onnx(model_dir, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_models_of_fluxes_take_fluxes(tmp_path: Path) -> None:
    model = get_model(output_dim=3, input_size=SIZE, encoder="test_resnet", fits={"layout": {}, "stretch": None})
    checkpoint.save_model(model.eval(), tmp_path)
    onnx_export.export_onnx(tmp_path, tmp_path / "m.onnx")
    fluxes = 5 * torch.randn(4, SIZE, SIZE, 3)
    with torch.no_grad():
        expected = model(fluxes).numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / "m.onnx", fluxes), expected, atol=1e-3)


def test_settings_that_are_none(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"ends in \.onnx"):
        onnx_export.export_onnx(model_dir, tmp_path / "m.pt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SettingError, match=r"pip install 'zoobot\[export\]'"):
        onnx_export.export_onnx(model_dir, tmp_path / "m.onnx")


@pytest.fixture
def hub(model_dir: Path, tmp_path: Path) -> Path:
    return hub_folder.export_hub(model_dir, tmp_path / "hub", license_id="bsd-3-clause")


def test_a_folder_for_the_hub_predicts_and_starts_other_models(
    hub: Path, model_dir: Path, catalog: Path, tmp_path: Path
) -> None:
    assert {path.name for path in hub.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    tables = []
    for folder in (model_dir, hub):
        save_loc = tmp_path / "p.parquet"
        predict(checkpoint_dir=folder, catalog=catalog, save_loc=save_loc, overwrite=True, device="cpu")
        tables.append(pd.read_parquet(save_loc))
    pd.testing.assert_frame_equal(*tables)
    weights = read_weights(hub)
    assert weights.encoder == "test_resnet"
    started = get_model(output_dim=2, input_size=SIZE, weights=hub).encoder.state_dict()
    for name, tensor in checkpoint.load_model(model_dir).encoder.state_dict().items():
        assert torch.equal(started[name], tensor)


def test_the_hub_can_read_its_card(hub: Path, schema: schemas.Schema) -> None:
    card = huggingface_hub.ModelCard((hub / "README.md").read_text())
    assert card.data.license == "bsd-3-clause"
    assert card.data.library_name == "zoobot"
    assert schema.name in card.data.tags
    for answer in schema.answers:
        assert answer.text in card.text
    assert "trained on 29 galaxies" in card.text
    assert "Started from**: random weights" in card.text


def test_the_card_of_a_model_folder_is_the_same(hub: Path, model_dir: Path) -> None:
    card = (model_dir / "MODEL_CARD.md").read_text()
    assert (hub / "README.md").read_text().endswith(card)


def test_a_card_tells_scores_and_calibration(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "m")
    recalibration = Recalibration(((0, 1), (2, 4)), np.ones(2), np.ones(2), np.zeros(2))
    measured = {"all questions": {"before": {"coverage_90": [0.625, 0.1]}, "after": {"coverage_90": [0.875, 0.1]}}}
    facts = {"n_samples": 5, "tta": "none", "galaxies": 40, "measured": measured}
    save_calibration(tmp_path / "m", recalibration, facts)
    scores = {"galaxies": 123, "all_questions": {"accuracy": 0.75, "baseline_accuracy": 0.5, "floor_accuracy": None}}
    (tmp_path / "metrics.json").write_text(json.dumps(scores))
    hub_folder.export_hub(tmp_path / "m", tmp_path / "hub", metrics=tmp_path / "metrics.json")
    card = huggingface_hub.ModelCard((tmp_path / "hub" / "README.md").read_text())
    assert card.data.license == "unknown"
    assert card.data.metrics == ["accuracy"]
    assert "| leading answers that are right | 0.75 | 0.5 | – |" in card.text
    assert "fitted to 40 galaxies" in card.text
    assert "0.625 before, 0.875 after" in card.text
    found, expected = (tmp_path / folder / "calibration.json" for folder in ("hub", "m"))
    assert found.read_bytes() == expected.read_bytes()


def test_a_calibration_of_other_weights_is_not_passed_on(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "m")
    (tmp_path / "m" / "calibration.json").write_text(json.dumps({"weights_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="belongs to other weights"):
        hub_folder.export_hub(tmp_path / "m", tmp_path / "hub")
    (tmp_path / "m" / "calibration.json").write_text("[")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        hub_folder.export_hub(tmp_path / "m", tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_what_is_in_the_way_is_left_alone(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine").write_text("mine")
    with pytest.raises(SettingError, match="holds something"):
        hub_folder.export_hub(model_dir, tmp_path / "hub")
    with pytest.raises(SettingError, match="license: got 'My own'"):
        hub_folder.export_hub(model_dir, tmp_path / "other", license_id="My own")

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(KeyboardInterrupt):
        hub_folder.export_hub(model_dir, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_an_empty_folder_may_be_where_one_is(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hub_folder.export_hub(model_dir, ".")
    assert checkpoint.load_model(tmp_path).config.encoder == "test_resnet"


def test_the_command(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> int:
        command = ["zoobot", "export", "--checkpoint-dir", model_dir, "--save-loc", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    assert run(tmp_path / "hub", "--format", "hub") == 0
    assert "Decide on a licence" in capsys.readouterr().out
    assert run(tmp_path / "m.onnx", "--format", "onnx") == 0
    assert "differs from torch by at most" in capsys.readouterr().out
    assert run(tmp_path / "m.pt", "--format", "pickle") == 2
    assert "expected onnx or hub" in capsys.readouterr().err


def test_a_model_without_a_tree_has_a_card(tmp_path: Path) -> None:
    checkpoint.save_model(get_model(output_dim=3, input_size=SIZE, encoder="test_resnet"), tmp_path / "m")
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert "3 answers" in card
    assert "not recorded" in card


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_models_of_labels_are_exported_too(kind, tmp_path):
    targets = ("mass",) if kind == "linear" else ()
    model = get_model(output_dim=1 if targets else 2, input_size=32, encoder="test_resnet", head=kind, targets=targets)
    if targets:
        model.head.scale.fill_(500.0)
    checkpoint.save_model(model.eval(), tmp_path / "m")
    done = onnx_export.export_onnx(tmp_path / "m", tmp_path / "m.onnx")
    session = ort.InferenceSession(str(done.path))
    assert session.get_outputs()[0].name == ("numbers" if targets else "probabilities")
    images = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8)
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(images).numpy(), rtol=1e-3, atol=1e-3)
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert ("Predicts mass of a galaxy" in card) == bool(targets)
    assert "volunteers would classify" not in card or not targets
