"""Faster prediction on CPUs: the encoder run by ONNX Runtime or OpenVINO instead of torch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoobot.errors import SettingError
from zoobot.estimators.define_model import Model
from zoobot.estimators.encoders import count_features
from zoobot.estimators.onnx_export import export_encoder, import_optional

__all__ = ["RUNTIMES", "use_runtime"]

Run = Callable[[Any], Any]


def use_runtime(model: Model, runtime: str) -> Model:
    """Give a model that predicts as this one does, on CPUs, with another program computing the encoder.

    Preprocessing, head and draws of dropout stay torch's, and are shared with ``model``; it can no longer be trained.
    The encoder is exported and compiled each time, which takes some seconds.

    Args:
        model: From :func:`zoobot.estimators.checkpoint.load_model`, on a CPU.
        runtime: ``torch`` (the model itself), ``onnx`` (ONNX Runtime) or ``openvino``; all compute in float32.

    Raises:
        SettingError: There is no such runtime, or its packages are missing.
        ModelError: The encoder cannot be exported.
    """
    if runtime not in RUNTIMES:
        raise SettingError(f"runtime: got {runtime!r}, expected one of {', '.join(RUNTIMES)}")
    start = RUNTIMES[runtime]
    if start is None:
        return model
    run, features = start(model), count_features(model.encoder)
    return Model(model.preprocess, _Encoder(run, features), model.head, model.config, model.schema).eval()


class _Encoder(nn.Module):
    """An encoder that torch sees only from outside."""

    def __init__(self, run: Run, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self._run = run

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.from_numpy(self._run(pixels.contiguous().numpy()))


def _start_onnx(model: Model) -> Run:
    onnxruntime = import_optional("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(export_encoder(model), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def _start_openvino(model: Model) -> Run:
    openvino = import_optional("openvino", "openvino")
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice may be bfloat16, which moves fractions by more than 0.01
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(export_encoder(model)), "CPU", settings)
    return lambda pixels: compiled(pixels)[0]


RUNTIMES: dict[str, Callable[[Model], Run] | None] = {"torch": None, "onnx": _start_onnx, "openvino": _start_openvino}
"""What can compute an encoder, by name: called with the model, gives a function of arrays."""
