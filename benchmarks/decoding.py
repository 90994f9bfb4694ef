"""Decoding PNG or JPEG files: every decoder that is installed, on one thread, on two, and in two processes.

Run ``python benchmarks/decoding.py --folder FOLDER --file-format png``; it prints a markdown table of
milliseconds per image, medians of rounds in which all take turns. Decoders that Zoobot does not need take
part where installed: ``pip install imagecodecs pyspng pyvips pyvips-binary``.
"""

import argparse
import contextlib
import functools
import importlib
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from zoobot.data import images

Decoder = Callable[[bytes], object]
Source = tuple[str, Callable[[Any], Decoder]]  # a module, and what makes a decoder of it


def pillow(library: Any) -> Decoder:
    return lambda encoded: np.asarray(library.open(io.BytesIO(encoded)).convert("RGB"))


def opencv(library: Any) -> Decoder:
    return lambda encoded: library.imdecode(np.frombuffer(encoded, np.uint8), library.IMREAD_COLOR)


def vips(library: Any) -> Decoder:
    return lambda encoded: library.Image.new_from_buffer(encoded, "", access="sequential").numpy()


def kornia_png(library: Any) -> Decoder:
    def decode(encoded: bytes) -> object:
        width, height = (int.from_bytes(encoded[at : at + 4], "big") for at in (16, 20))
        return library.decode_image_png_u8(encoded, (height, width), "rgb")

    return decode


def zoobot(size: int) -> Decoder:
    return lambda encoded: images.decode_image(encoded, name="", size=size)


BOTH: dict[str, Source] = {
    "Pillow": ("PIL.Image", pillow),
    "opencv": ("cv2", opencv),
    "pyvips": ("pyvips", vips),
    "**zoobot**, resized to 300": ("zoobot", lambda _: zoobot(300)),
    "**zoobot**, resized to 128": ("zoobot", lambda _: zoobot(128)),
}
PNG: dict[str, Source] = {
    "pyspng": ("pyspng", lambda library: library.load),
    "imagecodecs png": ("imagecodecs", lambda library: library.png_decode),
    "imagecodecs spng": ("imagecodecs", lambda library: library.spng_decode),
    "kornia_rs": ("kornia_rs.io", kornia_png),
}
JPEG: dict[str, Source] = {
    "simplejpeg": ("simplejpeg", lambda library: library.decode_jpeg),
    "imagecodecs jpeg8": ("imagecodecs", lambda library: library.jpeg8_decode),
    "kornia_rs": (
        "kornia_rs.io",
        lambda library: lambda encoded: library.decode_image_jpegturbo(encoded, "rgb"),
    ),
}


def make_decoder(file_format: str, name: str) -> Decoder:
    module, make = (BOTH | (PNG if file_format == "png" else JPEG))[name]
    return make(importlib.import_module(module))


def installed(file_format: str) -> dict[str, Decoder]:
    decoders = {}
    for name in BOTH | (PNG if file_format == "png" else JPEG):
        with contextlib.suppress(ImportError):
            decoders[name] = make_decoder(file_format, name)
    return decoders


@functools.cache  # so that processes neither wait for the disk nor are sent the files
def read_all(paths: tuple[Path, ...]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def decode_all(file_format: str, name: str, paths: tuple[Path, ...]) -> None:
    decoder = make_decoder(file_format, name)
    for content in read_all(paths):
        decoder(content)


def seconds_per_image(task: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    task()
    return (time.perf_counter() - start) / count


def measure(file_format: str, paths: tuple[Path, ...], rounds: int) -> dict[str, list[float]]:
    decoders = installed(file_format)
    contents = read_all(paths)
    parts = [paths[start::4] for start in range(4)]
    times: dict[str, list[list[float]]] = {name: [] for name in decoders}
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(2, get_context("spawn")) as processes:
        for _ in range(rounds + 2):
            for name, decoder in decoders.items():
                decode_part = functools.partial(decode_all, file_format, name)
                ways: list[Callable[[], object]] = [
                    functools.partial(list, map(decoder, contents)),
                    functools.partial(lambda decode: list(threads.map(decode, contents)), decoder),
                    functools.partial(lambda decode: list(processes.map(decode, parts)), decode_part),
                ]
                times[name].append([seconds_per_image(way, len(contents)) for way in ways])
    # The first two rounds import, read and warm up.
    return {name: [statistics.median(way) for way in zip(*rows[2:], strict=True)] for name, rows in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--file-format", choices=["png", "jpg"], default="png")
    parser.add_argument("--count", type=int, default=40, help="images")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    paths = images.find_images(args.folder, args.file_format)[: args.count]
    times = measure(args.file_format, tuple(paths), args.rounds)
    print("| ms per image | 1 thread | 2 threads | 2 processes |\n|---|---|---|---|")
    for name, ways in sorted(times.items(), key=lambda item: item[1][0]):
        print(f"| {name} | " + " | ".join(f"{1000 * way:.2f}" for way in ways) + " |")


if __name__ == "__main__":
    main()
