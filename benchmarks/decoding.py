"""Decoding PNG or JPEG files: every decoder that is installed, on one thread, on two, and in two processes.

Run ``python benchmarks/decoding.py --folder FOLDER --file-format png`` (made-up galaxies without the folder).
Decoders that Zoobot does not need take part where installed: ``pip install imagecodecs pyspng pyvips pyvips-binary``.
"""

import contextlib
import functools
import importlib
import io
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import galaxies
import numpy as np
import timing

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


def make_cases(
    decoders: dict[str, Decoder],
    file_format: str,
    paths: tuple[Path, ...],
    threads: ThreadPoolExecutor,
    processes: ProcessPoolExecutor,
) -> dict[tuple[str, str], timing.Case]:
    contents = read_all(paths)
    parts = [paths[start::4] for start in range(4)]
    cases: dict[tuple[str, str], timing.Case] = {}
    for name, decoder in decoders.items():
        cases[name, "1 thread"] = partial(exhaust, map, decoder, contents)
        cases[name, "2 threads"] = partial(exhaust, threads.map, decoder, contents)
        cases[name, "2 processes"] = partial(exhaust, processes.map, partial(decode_all, file_format, name), parts)
    return cases


def exhaust(apply: Callable[..., Iterable[object]], function: Callable[[Any], object], items: Iterable[Any]) -> None:
    for _ in apply(function, items):
        pass


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--file-format", choices=["png", "jpg"], default="png")
    parser.add_argument("--count", type=int, default=40, help="images")
    args = parser.parse_args()
    count, repeats = (4, 1) if args.quick else (args.count, args.repeats)
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadPoolExecutor(2) as threads,
        ProcessPoolExecutor(2, get_context("spawn")) as processes,
    ):
        found = galaxies.find_or_make_up(args.folder, Path(scratch), count=count, file_format=args.file_format)
        decoders = installed(args.file_format)
        cases = make_cases(decoders, args.file_format, tuple(found[:count]), threads, processes)
        seconds = timing.interleave(cases, repeats, warm_ups=2)  # both processes import and read
    ways = list(dict.fromkeys(way for _, way in cases))
    fastest = sorted(decoders, key=lambda name: seconds[name, ways[0]])
    rows = [[name, *(f"{1000 * seconds[name, way] / count:.2f}" for way in ways)] for name in fastest]
    timing.print_rows([f"ms per {args.file_format}", *ways], rows)
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
