"""The model folder: ``config.json``, ``model.safetensors`` and a model card; nothing in it is pickled."""

import contextlib
import errno
import hashlib
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from zoobot.errors import ModelError, ZoobotError
from zoobot.estimators.define_model import Model, ModelConfig, build_model
from zoobot.estimators.model_card import write_card
from zoobot.files import replace_atomically
from zoobot.schemas import Schema

__all__ = ["CALIBRATION_NAME", "count_parameters", "load_config", "load_model", "save_model", "update_metadata"]

CALIBRATION_NAME = "calibration.json"
"""The recalibration of a model, if there is one: see zoobot.predictions.calibration_file."""

_FORMAT = 1
_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "MODEL_CARD.md"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "model": dict,
    "schema": (dict, type(None)),
    "weights_sha256": str,
    "versions": dict,
    "metadata": dict,
}
_SHOWN = 5  # faulty tensors named in a message
_LONGEST = 300  # letters of a line of it


def save_model(model: Model, folder: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a model folder, all that prediction and finetuning need; an older model in it is replaced.

    Args:
        model: On any device.
        folder: Created if need be.
        metadata: What else is worth knowing (training settings, metrics, fingerprint of the data). Kept in
            ``config.json``; what JSON cannot hold is written as text, numbers that are not finite as null.

    >>> import tempfile
    >>> from zoobot.estimators.define_model import get_model
    >>> folder = tempfile.mkdtemp()
    >>> save_model(get_model(output_dim=2, input_size=32, encoder="resnet10t"), folder, {"epochs": 3})
    >>> load_config(folder)["metadata"]
    {'epochs': 3}
    """
    folder = Path(folder)
    weights = safetensors.torch.save(_plain_tensors(model), metadata={"format": "pt"})
    config = {
        "format": _FORMAT,
        "model": model.config.to_dict(),
        "schema": None if model.schema is None else model.schema.to_dict(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "parameters": count_parameters(model),
        "versions": {package: version(package) for package in ("zoobot", "torch", "timm")},
        "metadata": _plain(metadata or {}),
    }
    # Renamed from the last to the first, a moment apart: the weights, then the config with their sum, which
    # gives away a folder that was cut off between the two.
    with (
        replace_atomically(folder / _CARD) as card_path,
        replace_atomically(folder / _CONFIG) as config_path,
        replace_atomically(folder / _WEIGHTS) as weights_path,
    ):
        weights_path.write_bytes(weights)
        config_path.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        card_path.write_text(write_card(config), encoding="utf-8")


def count_parameters(module: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for parameter in module.parameters())


def _plain_tensors(model: Model) -> dict[str, Tensor]:
    """Give the weights in the order of their indices in memory, none sharing memory with another."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def _plain(value: Any) -> Any:
    """Turn anything into what strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def load_config(folder: str | Path) -> dict[str, Any]:
    """Read a model folder's ``config.json``: its model, schema, versions, metadata and the weights' sum.

    Raises:
        ModelError: There is no such folder or file, or it is not one that this version can read.
    """
    path = Path(folder) / _CONFIG
    if not path.parent.is_dir():
        raise ModelError(f"model folder: {folder} does not exist, expected a folder written by training")
    try:
        config = json.loads(_read(path).decode())
    except FileNotFoundError:
        raise ModelError(f"model folder: {folder} has no {_CONFIG}, expected a folder written by training") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}): save or fetch the model again") from error
    if not isinstance(config, dict) or "format" not in config:
        raise ModelError(f"{path}: not the config of a Zoobot model: it has no format")
    if config["format"] != _FORMAT:
        raise ModelError(
            f"{path}: got format {str(config['format'])[:20]}, expected {_FORMAT}: it needs another version of zoobot"
        )
    missing = [key for key in _KINDS if key not in config]
    if missing:
        raise ModelError(f"{path}: lacks {', '.join(missing)}: save or fetch the model again")
    wrong = [key for key, kind in _KINDS.items() if not isinstance(config[key], kind)]
    if wrong:
        raise ModelError(f"{path}: holds something else as {', '.join(wrong)}: save or fetch the model again")
    return config


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device")
    return path.read_bytes()


def update_metadata(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Add to the metadata in a model folder's ``config.json``, and write its card anew.

    Raises:
        ModelError: As :func:`load_config`.
    """
    config = load_config(folder)
    config["metadata"] |= _plain(facts)
    with replace_atomically(Path(folder) / _CARD) as card_path, replace_atomically(Path(folder) / _CONFIG) as path:
        path.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        card_path.write_text(write_card(config), encoding="utf-8")


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> Model:
    """Load a model folder, ready to predict (in evaluation mode) on ``device``.

    Parts of your own must have been registered under the names with which the model was made.

    Raises:
        ModelError: The folder is incomplete or damaged, or does not fit this code.
    """
    config = load_config(folder)
    path = Path(folder) / _WEIGHTS
    weights = _read_weights(path, config["weights_sha256"])
    # A stranger's config must not decide how much memory is taken: it is first built without any.
    sketch = None
    with contextlib.suppress(Exception), torch.device("meta"):  # parts of one's own may need memory
        sketch = _build(Path(folder), config)
    if sketch is not None:
        _check_weights(path, sketch, weights)
    model = _build(Path(folder), config)
    _check_weights(path, model, weights)
    _check_values(path, model, weights)
    model.load_state_dict(weights)
    return model.to(device).eval()


def _build(folder: Path, config: Mapping[str, Any]) -> Model:
    try:
        schema = None if config["schema"] is None else Schema.from_dict(config["schema"])
        return build_model(ModelConfig.from_dict(config["model"]), schema)
    except (ZoobotError, TypeError) as error:
        reason = "\n".join(line[:_LONGEST] for line in str(error).splitlines()[:20])
        raise ModelError(f"{folder / _CONFIG}: {reason}") from error


def _read_weights(path: Path, expected: object) -> dict[str, Tensor]:
    try:
        content = _read(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}): save or fetch the model again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(
            f"{path}: got sha256 {found[:12]}…, expected {str(expected)[:12]}… as in {_CONFIG}: "
            "torn, or from another save; save or fetch the model again"
        )
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:  # the last three: odd types
        raise ModelError(f"{path}: not a safetensors file ({error})") from error


def _check_weights(path: Path, model: Model, weights: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    faulty = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if not faulty:
        return
    lines = [
        f"  {name}: got {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
        for name in faulty[:_SHOWN]
    ]
    more = [f"  and {len(faulty) - _SHOWN} more"] if len(faulty) > _SHOWN else []
    raise ModelError(
        f"{path}: does not fit encoder {model.config.encoder} and head {model.config.head} as they are here: "
        "load it with the code and the timm that made it\n" + "\n".join(lines + more)
    )


def _check_values(path: Path, model: Model, weights: Mapping[str, Tensor]) -> None:
    """Refuse what would load, and silently predict nonsense."""
    for name, tensor in model.state_dict().items():
        found = weights[name]
        if found.is_floating_point() != tensor.is_floating_point() or found.is_complex():
            raise ModelError(
                f"{path}: {name}: got {found.dtype}, expected {tensor.dtype}: save or fetch the model again"
            )
        if found.is_floating_point() and not found.float().isfinite().all():
            raise ModelError(
                f"{path}: {name}: has values that are no finite numbers: train again, from an earlier model"
            )
