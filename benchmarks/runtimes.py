"""Encoders on a CPU: torch beside ONNX Runtime and OpenVINO, in float32 and in bfloat16, which is not kept.

Run ``python benchmarks/runtimes.py``; images are made up. Preprocessing and head are left out: all share these.
Where other programs compute at the same time, ``--cpu-time --threads 1`` counts this process's own seconds instead.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import openvino
import timing
import torch

from zoobot.estimators.define_model import get_model
from zoobot.estimators.onnx_export import export_encoder

MODELS = {
    "efficientnet_b0": {"input_size": 300, "crop_size": 225, "resize_size": 224, "channels": 1},
    "tf_efficientnet_lite0": {"input_size": 212, "crop_size": 160, "resize_size": 128},
    "resnet18": {"input_size": 128, "crop_size": 84, "resize_size": 64},
}
TORCH = "torch, float32"
Run = Callable[[Any], Any]


def make_cases(name: str, threads: int) -> dict[str, Run]:
    """Functions from pixels (batch, channels, side, side), float32, to features."""
    model = get_model(output_dim=34, encoder=name, **MODELS[name]).eval()
    encoder = model.encoder.to(memory_format=torch.channels_last)
    content = export_encoder(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    graph = core.read_model(content)

    def compile_graph(precision: str) -> Run:
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        return core.compile_model(graph, "CPU", settings)

    def run_torch(pixels: Any, autocast: bool) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            encoder(torch.from_numpy(pixels).to(memory_format=torch.channels_last))

    return {
        TORCH: partial(run_torch, autocast=False),
        "torch, bfloat16 autocast": partial(run_torch, autocast=True),
        "ONNX Runtime, float32": lambda pixels: session.run(None, {"pixels": pixels}),
        "OpenVINO, float32": compile_graph("f32"),
        "OpenVINO, bfloat16": compile_graph("bf16"),
    }


def time_case(run: Run, pixels: Any, clock: Callable[[], float]) -> float:
    start = clock()
    run(pixels)
    return clock() - start


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process, not of the clock on the wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    repeats = 1 if args.quick else args.repeats
    for name, sizes in MODELS.items():
        runs = make_cases(name, args.threads)
        side, channels = sizes["resize_size"], sizes.get("channels", 3)
        for batch in (16,) if args.quick else (16, 64):
            pixels = np.random.default_rng(0).random((batch, channels, side, side), dtype=np.float32)
            cases: dict[str, timing.Case] = {case: partial(time_case, run, pixels, clock) for case, run in runs.items()}
            print(f"\n{name}, {side} pixels, {channels} channels, batch {batch}, {args.threads} threads:\n")
            timing.print_comparison(timing.interleave(cases, repeats), dict.fromkeys(cases, batch), TORCH, "image")
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
