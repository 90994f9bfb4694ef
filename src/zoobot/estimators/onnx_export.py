"""Models as ONNX files: uint8 images in, concentrations out, for programs that have no torch."""

import dataclasses
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.augment import Augment
from zoobot.estimators.checkpoint import load_config, load_model
from zoobot.estimators.define_model import LinearHead, Model, ModelConfig
from zoobot.files import replace_atomically

__all__ = ["EXPORT_PACKAGES", "Exported", "export_encoder", "export_onnx", "import_optional", "read_onnx_facts"]

EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the optional extra ``export`` installs."""

_FORMAT = 1
_BATCHES = (1, 3, 8)  # that are compared with torch's
_ALLOWED = 1e-3


class Exported(NamedTuple):
    """What was written, and how far it is from torch.

    Attributes:
        path: the ONNX file.
        output: what it gives: ``concentrations``, ``probabilities`` or ``numbers``.
        difference: the largest between ONNX Runtime and torch, of expected fractions, or probabilities, or numbers in
            units of their scale.
        images: how many images were compared, in batches of several sizes.
    """

    path: Path
    output: str
    difference: float
    images: int


def export_onnx(checkpoint_dir: str | Path, save_loc: str | Path) -> Exported:
    """Write a model folder as an ONNX file with all of its processing inside, once it was found to agree with torch.

    It takes ``images`` (batch, input_size, input_size, channels) as uint8, any number at a time, and gives
    ``concentrations`` (batch, answers), float32, of the whole network: without draws of dropout, and not recalibrated;
    or ``probabilities`` of classes, or ``numbers``, of models finetuned to these.
    (Of models of fluxes, whose FITS files are not stretched, images are float32.) The names of the answers, the
    decision tree and the weights' sum are in the file's metadata.

    Raises:
        SettingError: ``save_loc`` does not end in ``.onnx``, or packages are missing.
        ModelError: the model cannot be loaded, or not be exported, or the export's fractions differ from torch's by
            more than 0.001; then nothing is written.
    """
    if Path(save_loc).suffix != ".onnx":
        raise SettingError(f"save_loc: got {save_loc}, expected a file name that ends in .onnx")
    onnx, *_ = [import_optional(package, "export") for package in EXPORT_PACKAGES]
    config, model = load_config(checkpoint_dir), load_model(checkpoint_dir)
    content = _export(_Graph(model), _example(model.config, 2), "images", model.head.outputs, model.config)
    proto = onnx.load_model_from_string(content)
    facts = {
        "zoobot_format": _FORMAT,
        "task": model.head.task,
        "label_cols": list(model.config.targets) if model.schema is None else model.schema.label_cols,
        **{name: config[name] for name in ("model", "schema", "weights_sha256", "versions")},
    }
    onnx.helper.set_model_props(proto, {name: json.dumps(fact) for name, fact in facts.items()})
    content = proto.SerializeToString()
    difference = _compare(content, model)
    if not difference <= _ALLOWED:  # nor NaN
        raise ModelError(
            f"the export of {checkpoint_dir} differs from torch by up to {difference:.2g}, allowed is {_ALLOWED}; "
            "nothing was written: predict with zoobot, or use another preprocess and encoder"
        )
    with replace_atomically(save_loc) as path:
        path.write_bytes(content)
    return Exported(Path(save_loc), model.head.outputs, difference, sum(_BATCHES))


def export_encoder(model: Model) -> bytes:
    """Give a model's encoder as ONNX: ``pixels`` (batch, channels, side, side) to ``features`` (batch, features).

    Raises:
        SettingError: packages are missing.
        ModelError: the encoder cannot be exported.
    """
    for package in EXPORT_PACKAGES[:2]:
        import_optional(package, "export")
    config = model.config
    pixels = torch.zeros(2, config.channels, config.resize_size, config.resize_size)
    return _export(model.encoder, pixels, "pixels", "features", config)


def read_onnx_facts(path: str | Path) -> dict[str, Any]:
    """Read what :func:`export_onnx` wrote into a file's metadata: ``model``, ``schema``, ``weights_sha256`` and so on.

    Raises:
        ModelError: it is no ONNX file, or none of ours.
        SettingError: the package is missing that reads it.
    """
    onnx = import_optional("onnx", "export")
    if not Path(path).is_file():  # a pipe would be waited for
        raise ModelError(f"{path} is no file, expected an ONNX file")
    try:
        proto = onnx.load(str(path), load_external_data=False)
        facts = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    except Exception as error:  # protobuf's own, and JSON's
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"{path}: cannot be read as an ONNX file of zoobot ({reason}): export it again") from error
    if facts.get("zoobot_format") != _FORMAT or not isinstance(facts.get("model"), dict):
        raise ModelError(f"{path}: not an ONNX file that this version of zoobot exported: export the model folder")
    return facts


def import_optional(package: str, extra: str) -> ModuleType:
    """Import a package that not everyone has.

    Raises:
        SettingError: it is not installed.

    >>> import_optional("no_such_package", "export")
    Traceback (most recent call last):
    zoobot.errors.SettingError: this needs no_such_package, which is not installed: pip install 'zoobot[export]'
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SettingError(f"this needs {package}, which is not installed: pip install 'zoobot[{extra}]'") from error


class _Graph(nn.Module):
    """The model as it is exported: its evaluation alone, and for any number of images."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        augment = model.preprocess
        # subclasses may do anything
        self.preprocess = _SeparableResize(augment) if type(augment) is Augment else augment
        self.encoder, self.head = model.encoder, model.head

    def forward(self, images: Tensor) -> Tensor:
        concentrations: Tensor = self.head(self.encoder(self.preprocess(images)))
        return concentrations


class _SeparableResize(nn.Module):
    """What :class:`Augment` does in evaluation, as two matrix products: ``M X Mᵀ`` for each channel.

    Crop, average and bilinear resampling are linear, and the same along both axes, so that one matrix has all of them.
    Its columns are what becomes of images in which one column of pixels is 1: each row of M sums to 1.
    """

    matrix: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        config = augment.config
        plain = Augment(dataclasses.replace(config, channels=1, mean=(0.0,), std=(1.0,))).eval()
        side = config.input_size
        columns = torch.eye(side)[:, None, :, None].expand(side, side, side, 1)  # (column, height, width, 1)
        with torch.no_grad():
            matrix = plain(columns)[:, 0, 0].T.contiguous()  # (resize_size, input_size)
        self.register_buffer("matrix", matrix)
        self.register_buffer("scale", 1 / (augment.std * _brightest(config)))
        self.register_buffer("offset", -augment.mean / augment.std)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.matrix @ images.permute(0, 3, 1, 2).float() @ self.matrix.T
        return pixels * self.scale + self.offset


def _takes_fluxes(config: Any) -> bool:
    """Whether the model was trained on FITS files without a stretch, whose fluxes are no uint8."""
    fits = getattr(config, "fits", None)
    return fits is not None and fits.get("stretch") is None


def _brightest(config: Any) -> int:
    return 1 if _takes_fluxes(config) else 255


def _example(config: ModelConfig, count: int) -> Tensor:
    """Blurred galaxies in noise, and as the last image noise alone; the same ones every time."""
    generator = torch.Generator().manual_seed(count)
    noise = torch.rand(count, config.input_size, config.input_size, config.channels, generator=generator)
    steps = torch.linspace(-4, 4, config.input_size)
    profiles = torch.exp(-(steps**2) / (0.3 + 2 * torch.rand(2, count, 1, generator=generator)))
    light = (profiles[0][:, :, None] * profiles[1][:, None, :])[..., None]
    images = 0.1 * noise + 0.9 * light
    images[-1] = noise[-1]
    return images if _takes_fluxes(config) else (255 * images).to(torch.uint8)


def _export(module: nn.Module, example: Tensor, source: str, target: str, config: ModelConfig) -> bytes:
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=[source],
                output_names=[target],
                verbose=False,
            )
        content: bytes = _strip(program).SerializeToString()
    except Exception as error:  # whatever the exporter and the model's own code raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"preprocess {config.preprocess} and encoder {config.encoder} cannot be exported to ONNX ({reason}): they "
            "must be tensor operations alone, the same for any number of images, and at most 2 GiB"
        ) from error
    return content


def _strip(program: Any) -> Any:
    """Take out where the code of each operation lies on this machine."""
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about its own workings to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _compare(content: bytes, model: Model) -> float:
    """The largest difference between ONNX Runtime and torch, as :class:`Exported` has it."""
    session = import_optional("onnxruntime", "export").InferenceSession(content, providers=["CPUExecutionProvider"])
    config = model.config
    largest = 0.0
    for count in _BATCHES:
        images = _example(config, count)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = model(images).numpy()
        difference = np.abs(_scale(found, model) - _scale(expected, model)).max()
        largest = float(np.maximum(largest, difference))  # keeps NaN
    return largest


def _scale(outputs: NDArray[np.float32], model: Model) -> NDArray[np.float64]:
    """Each answer's share of the concentrations of its question; numbers, in units of their scale."""
    if isinstance(model.head, LinearHead):
        return np.asarray(outputs / model.head.scale.double().numpy(), np.float64)
    groups = [(0, model.config.output_dim - 1)] if model.schema is None else model.schema.question_index_groups
    parts = [outputs[:, first : last + 1].astype(np.float64) for first, last in groups]
    return np.concatenate([part / part.sum(axis=1, keepdims=True) for part in parts], axis=1)
