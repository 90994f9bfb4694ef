"""The model and its folder: parts by name, sampling in one pass, round trips, damaged folders."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from zoobot import schemas
from zoobot.errors import ModelError, SettingError
from zoobot.estimators import checkpoint, define_model
from zoobot.estimators.augment import PREPROCESSES, Augment, AugmentConfig, register_preprocess
from zoobot.estimators.define_model import DirichletHead, Head, Model, ModelConfig, get_model, register_head
from zoobot.estimators.encoders import ENCODERS, count_features, create_encoder, register_encoder


class TinyEncoder(nn.Module):
    """Two convolutions and an average; counts how often it runs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = 16
        self.passes = 0
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
        )

    def forward(self, pixels: Tensor) -> Tensor:
        self.passes += 1
        features: Tensor = self.layers(pixels).mean((2, 3))
        return features


@pytest.fixture(autouse=True)
def tiny_encoder() -> Iterator[None]:
    """Register the tiny encoder, and leave the registries as they were."""
    registries: list[dict[str, Any]] = [ENCODERS, PREPROCESSES, define_model.HEADS]
    before = [dict(registry) for registry in registries]
    register_encoder("tiny", TinyEncoder)
    yield
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)


def make_model(**settings: Any) -> Model:
    torch.manual_seed(0)
    return get_model(**{"output_dim": 5, "input_size": 32, "encoder": "tiny", **settings})


def make_images(count: int = 4, side: int = 32, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, side, side, channels), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("encoder", "channels"), [("efficientnet_b0", 1), ("resnet18", 3)])
def test_known_encoders_predict(encoder: str, channels: int) -> None:
    model = make_model(encoder=encoder, channels=channels).eval()
    with torch.no_grad():
        concentrations = model(make_images(channels=channels))
        features = model.represent(make_images(channels=channels))
    assert concentrations.shape == (4, 5)
    assert features.shape == (4, count_features(model.encoder))
    assert ((concentrations > 1) & (concentrations < 101)).all()


def test_features_are_counted_where_the_encoder_widens_them() -> None:
    encoder = create_encoder("mobilenetv3_small_050", channels=1).eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, 1, 32, 32))
    assert features.shape == (1, count_features(encoder))


def test_transformers_take_the_size_of_the_images() -> None:
    model = make_model(encoder="test_vit", input_size=64, resize_size=48)
    assert model(make_images(side=64)).shape == (4, 5)


def test_defaults_of_sizes() -> None:
    config = make_model(input_size=33).config
    assert (config.crop_size, config.resize_size) == (24, 24)
    config = make_model(input_size=40, crop_size=36, resize_size=16).config
    assert (config.crop_size, config.resize_size) == (36, 16)


def test_the_schema_gives_the_answers() -> None:
    schema = schemas.load("gz_decals")
    model = make_model(output_dim=None, schema=schema)
    assert model(make_images()).shape == (4, 34)
    assert make_model(output_dim=34, schema=schema).schema is schema
    with pytest.raises(SettingError, match="output_dim: got 33, but schema gz_decals has 34 answers"):
        make_model(output_dim=33, schema=schema)
    with pytest.raises(SettingError, match="neither schema nor output_dim"):
        make_model(output_dim=None)


def test_a_fresh_model_has_almost_no_opinion() -> None:
    concentrations = make_model(encoder="test_resnet").eval()(make_images())
    assert ((concentrations > 2) & (concentrations < 6)).all()


def test_dirichlet_head_by_hand() -> None:
    head = DirichletHead(n_features=2, output_dim=1, dropout_rate=0.0)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, -2.0]]))
        head.linear.bias.fill_(0.5)
    expected = 1 + 100 / (1 + np.exp(-(3.0 - 2 * 1.0 + 0.5)))
    assert head(torch.tensor([[3.0, 1.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_the_head_computes_in_float32() -> None:
    head = DirichletHead(n_features=64, output_dim=3, dropout_rate=0.0)
    features = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, sampled = head(features), head.sample(features, 2)
    assert got.dtype == sampled.dtype == torch.float32
    assert torch.equal(got, head(features))
    assert torch.equal(sampled, head.sample(features, 2))


def test_sampling_runs_the_encoder_once() -> None:
    model = make_model().eval()
    before = model.encoder.passes
    assert model.sample(make_images(), 7).shape == (4, 7, 5)
    assert model.encoder.passes == before + 1


def test_one_sample_is_the_whole_network() -> None:
    model = make_model().eval()
    torch.testing.assert_close(model.sample(make_images(), 1)[:, 0], model(make_images()))
    with pytest.raises(SettingError, match="n_samples: got 0"):
        model.sample(make_images(), 0)


def test_samples_depend_on_the_seed_and_not_on_the_batch() -> None:
    head = DirichletHead(n_features=32, output_dim=3, dropout_rate=0.4)
    features = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    samples = head.sample(features, 4, seed=1)
    assert torch.equal(samples, head.sample(features, 4, seed=1))
    assert not torch.equal(samples, head.sample(features, 4, seed=2))
    torch.testing.assert_close(head.sample(features[5:6], 4, seed=1), samples[5:6])
    torch.testing.assert_close(head.sample(features.flip(0), 4, seed=1), samples.flip(0))
    torch.testing.assert_close(head.sample(features, 3, seed=1), samples[:, :3])


def test_each_sample_is_a_thinned_network() -> None:
    head = DirichletHead(n_features=6, output_dim=2, dropout_rate=0.5)
    # A feature of 1 among zeros shows whether its mask keeps it, and then doubles its weight.
    with torch.no_grad():
        logits = torch.logit((head.sample(torch.eye(6), 40) - 1) / 100) - head.linear.bias
    doubled = 2 * head.linear.weight.T[:, None].expand(6, 40, 2)
    kept = logits.abs() > 1e-3
    torch.testing.assert_close(logits, doubled * kept, rtol=0, atol=1e-3)
    assert 0.35 < kept.float().mean() < 0.65


def test_samples_average_to_the_whole_network() -> None:
    class LinearHead(Head):
        def activate(self, logits: Tensor) -> Tensor:
            return logits

    head = LinearHead(n_features=50, output_dim=3, dropout_rate=0.2).eval()
    features = torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        samples, whole = head.sample(features, 4000), head(features)
    error = samples.std(1) / 4000**0.5
    assert ((samples.mean(1) - whole).abs() < 4.5 * error).all()


def test_dropout_is_for_training() -> None:
    model = make_model(dropout_rate=0.5, rotate=False, flip=False, move=0.0)
    images = make_images()
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


def test_gradients_reach_every_weight() -> None:
    model = make_model()
    model(make_images()).log().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_parts_of_your_own() -> None:
    class Softplus(Head):
        def activate(self, logits: Tensor) -> Tensor:
            return nn.functional.softplus(logits)

    class Upside(Augment):
        def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return super().forward(images.flip(1), generator)

    register_head("softplus", Softplus)
    register_preprocess("upside", Upside)
    model = make_model(head="softplus", preprocess="upside").eval()
    assert isinstance(model.head, Softplus)
    plain = make_model(head="softplus").eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(make_images()), plain(make_images().flip(1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "efficientnet_b00"}, "did you mean .*efficientnet_b0"),
        ({"encoder": "hf-hub:someone/model"}, "encoder: unknown name"),
        ({"encoder": "qqqqqqqqqqqq"}, "timm.list_models"),
        ({"head": "dirichelt"}, "head: unknown name 'dirichelt', expected one of dirichlet"),
        ({"preprocess": "none"}, "preprocess: unknown name 'none', expected one of augment"),
    ],
)
def test_unknown_parts_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_model(**settings)


def test_encoders_that_do_not_fit_are_refused() -> None:
    class NoPooling(TinyEncoder):
        def forward(self, pixels: Tensor) -> Tensor:
            features: Tensor = self.layers(pixels)
            return features

    register_encoder("no_pooling", NoPooling)
    with pytest.raises(ModelError, match="no_pooling gave features of shape"):
        make_model(encoder="no_pooling")(make_images())
    register_encoder("no_count", lambda channels: nn.Conv2d(channels, 2, 3))
    with pytest.raises(ModelError, match="no_count has num_features=None"):
        make_model(encoder="no_count")
    with pytest.raises(ModelError, match="cannot be built"):
        create_encoder("resnet18", nonsense=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_dim": 0}, "output_dim: got 0"),
        ({"output_dim": 2.0}, r"output_dim: got 2\.0"),
        ({"dropout_rate": 1.0}, r"dropout_rate: got 1\.0"),
        ({"crop_size": 33}, "crop_size: got 33"),
        ({"encoder": 3}, "encoder: got 3, expected a name"),
        ({"zooom": (1, 2)}, "zooom: not a setting"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_model(**settings)


def test_wrong_images_are_refused() -> None:
    with pytest.raises(ModelError, match="images: got"):
        make_model()(make_images(side=31))


def test_config_round_trip_through_json() -> None:
    config = ModelConfig(
        output_dim=3, input_size=32, crop_size=24, resize_size=20, zoom=(0.9, 1.1), mean=(0.1, 0.2, 0.3)
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(SettingError, match="output_dim: missing"):
        ModelConfig.from_dict({"input_size": 3, "crop_size": 3, "resize_size": 3})


@pytest.mark.parametrize("encoder", ["tiny", "test_efficientnet"])
def test_a_saved_model_predicts_the_same(tmp_path: Path, encoder: str) -> None:
    schema = schemas.load("gz2")
    model = make_model(output_dim=None, schema=schema, encoder=encoder, zoom=(0.9, 1.1), mean=(0.1,))
    model.train()(make_images())  # moves the running averages of normalisation layers
    checkpoint.save_model(model, tmp_path / "run", {"epochs": 3, "loss": float("nan"), "path": tmp_path})
    loaded = checkpoint.load_model(tmp_path / "run")
    assert loaded.config == model.config
    assert loaded.schema == schema
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(make_images()), model.eval()(make_images()))
        assert torch.equal(loaded.sample(make_images(), 3), model.sample(make_images(), 3))
    metadata = checkpoint.load_config(tmp_path / "run")["metadata"]
    assert metadata == {"epochs": 3, "loss": None, "path": str(tmp_path)}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "model.safetensors", "MODEL_CARD.md"}
    assert "gz2" in (tmp_path / "run" / "MODEL_CARD.md").read_text()


def test_saving_again_replaces(tmp_path: Path) -> None:
    first, second = make_model(), make_model(dropout_rate=0.1)
    checkpoint.save_model(first, tmp_path, {"loss": np.float32(0.5), "sizes": np.arange(2)})
    assert checkpoint.load_config(tmp_path)["metadata"] == {"loss": 0.5, "sizes": [0, 1]}
    checkpoint.save_model(second, tmp_path)
    assert checkpoint.load_model(tmp_path).config.dropout_rate == 0.1


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save_model(make_model(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_card", fail)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_model(make_model(dropout_rate=0.1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def replace_weights(folder: Path, content: bytes) -> None:
    """Put other weights into the folder, with the right sum in its config."""
    (folder / "model.safetensors").write_bytes(content)
    edit_config(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def rename_tensor(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["renamed"] = tensors.pop("head.linear.bias")
    replace_weights(folder, safetensors.torch.save(tensors))


def reshape_tensor(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["head.linear.bias"] = torch.zeros(6)
    replace_weights(folder, safetensors.torch.save(tensors))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: tear(folder / "config.json"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no format"),
        (lambda folder: edit_config(folder, format=2), "got format 2, expected 1"),
        (lambda folder: (folder / "config.json").write_text('{"format": 1}'), "lacks model, schema"),
        (lambda folder: edit_config(folder, model=None), "config.json: "),
        (lambda folder: edit_config(folder, model={"depth": 3}), "depth: not a setting"),
        (lambda folder: edit_config(folder, schema={"name": 3}), "config.json: "),
        (lambda folder: (folder / "model.safetensors").unlink(), "No such file"),
        (lambda folder: tear(folder / "model.safetensors"), "got sha256 .* torn, or from another save"),
        (lambda folder: replace_weights(folder, b"pickle"), "not a safetensors file"),
        (rename_tensor, r"head.linear.bias: got nothing, expected \(5,\)\n  renamed: got \(5,\)"),
        (reshape_tensor, r"head.linear.bias: got \(6,\), expected \(5,\)"),
        (lambda folder: ENCODERS.pop("tiny"), "unknown name 'tiny'.* register_encoder"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    checkpoint.save_model(make_model(), tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=message):
        checkpoint.load_model(tmp_path)


def test_weights_and_config_of_two_saves_are_refused(tmp_path: Path) -> None:
    checkpoint.save_model(make_model(), tmp_path / "one")
    other = make_model()
    nn.init.ones_(other.head.linear.weight)
    checkpoint.save_model(other, tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(ModelError, match="from another save"):
        checkpoint.load_model(tmp_path / "one")


def test_a_strangers_config_takes_no_memory(tmp_path: Path) -> None:
    built_on = []

    class Watched(TinyEncoder):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            built_on.append(self.layers[0].weight.device.type)

    register_encoder("watched", Watched)
    checkpoint.save_model(make_model(encoder="watched"), tmp_path)
    config = checkpoint.load_config(tmp_path)
    edit_config(tmp_path, model={**config["model"], "output_dim": 65_536})
    built_on.clear()
    with pytest.raises(ModelError, match=r"head.linear.bias: got \(5,\), expected \(65536,\)"):
        checkpoint.load_model(tmp_path)
    assert built_on == ["meta"]


def test_an_encoder_that_cannot_be_built_without_memory_loads(tmp_path: Path) -> None:
    class Computing(TinyEncoder):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.scale = torch.ones(1).item()

    register_encoder("computing", Computing)
    model = make_model(encoder="computing").eval()
    checkpoint.save_model(model, tmp_path)
    assert torch.equal(checkpoint.load_model(tmp_path)(make_images()), model(make_images()))


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        checkpoint.load_model(tmp_path / "nowhere")


def test_a_model_config_is_an_augment_config() -> None:
    config = make_model().config
    assert isinstance(config, AugmentConfig)
    assert dataclasses.replace(config, output_dim=7).output_dim == 7


@pytest.mark.slow
def test_torchvision_imports_in_a_fresh_process() -> None:
    script = "import zoobot.estimators, timm, torchmetrics, torchvision.transforms.v2"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.slow
def test_a_folder_alone_gives_the_same_bits_in_a_fresh_process_without_a_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = get_model(output_dim=3, input_size=40, crop_size=36, resize_size=32, encoder="efficientnet_b0").eval()
    for part in model.modules():  # as after a training
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    images = torch.randint(0, 256, (4, 40, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        np.savez(tmp_path / "here.npz", images=images, concentrations=model(images))
    checkpoint.save_model(model, tmp_path / "model")
    script = """
import socket, sys
import numpy as np, torch
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from zoobot.estimators.checkpoint import load_model
model, images = load_model("model"), torch.from_numpy(np.load("here.npz")["images"])
torch.set_num_threads(int(sys.argv[1]))
with torch.inference_mode():
    np.save("there.npy", model(images))
"""
    subprocess.run([sys.executable, "-c", script, str(torch.get_num_threads())], cwd=tmp_path, check=True, timeout=120)
    there, here = np.load(tmp_path / "there.npy"), np.load(tmp_path / "here.npz")["concentrations"]
    assert there.tobytes() == here.tobytes()
