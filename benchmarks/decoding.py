"""Decoding PNG, JPEG or FITS files with every library that is installed.

Run ``python benchmarks/decoding.py --folder FOLDER --file-format png`` (made-up galaxies without the folder). PNG and
JPEG are decoded from memory, on one thread, on two, and in two processes; FITS cubes are read from files, packed in
several ways, on one thread. Libraries that Zoobot does not need take part where installed:
``pip install imagecodecs pyspng pyvips pyvips-binary fitsio``.
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
from astropy.io import fits
from numpy.typing import NDArray

from zoobot.data import fits_images, images
from zoobot.data.fits_images import FitsConfig
from zoobot.data.stretch import STRETCHES

Decoder = Callable[[Any], object]  # of the content of a file, or with FITS of its path
Source = tuple[str, Callable[[Any], Decoder]]  # a module, and what makes a decoder of it


def pillow(library: Any) -> Decoder:
    return lambda encoded: np.asarray(library.open(io.BytesIO(encoded)).convert("RGB"))


def opencv(library: Any) -> Decoder:
    return lambda encoded: library.imdecode(np.frombuffer(encoded, np.uint8), library.IMREAD_COLOR)


def opencv_half(library: Any) -> Decoder:
    return lambda encoded: library.imdecode(np.frombuffer(encoded, np.uint8), library.IMREAD_REDUCED_COLOR_2)


def pillow_half(library: Any) -> Decoder:
    def decode(encoded: bytes) -> object:
        image = library.open(io.BytesIO(encoded))
        image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(image)

    return decode


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
    "simplejpeg, half the size": (
        "simplejpeg",
        lambda library: lambda encoded: library.decode_jpeg(encoded, min_height=1, min_width=1, min_factor=2),
    ),
    "opencv, half the size": ("cv2", opencv_half),
    "Pillow, half the size": ("PIL.Image", pillow_half),
    "imagecodecs jpeg8": ("imagecodecs", lambda library: library.jpeg8_decode),
    "kornia_rs": (
        "kornia_rs.io",
        lambda library: lambda encoded: library.decode_image_jpegturbo(encoded, "rgb"),
    ),
}


def zoobot_fits(stretch: str, size: int | None) -> Decoder:
    return lambda path: images.read_picture(path, size=size, fits=FitsConfig(stretch=STRETCHES[stretch]))


FITS: dict[str, Source] = {
    "astropy": ("astropy.io.fits", lambda library: lambda path: np.asarray(library.getdata(path), np.float32)),
    "fitsio": ("fitsio", lambda library: lambda path: np.asarray(library.read(str(path)), np.float32)),
    "**zoobot**, fluxes": ("zoobot", lambda _: fits_images.read_bands),
    **{
        f"**zoobot**, stretched, {stretch}": ("zoobot", lambda _, stretch=stretch: zoobot_fits(stretch, None))
        for stretch in STRETCHES
    },
    "**zoobot**, stretched, percentile, resized to 300": ("zoobot", lambda _: zoobot_fits("percentile", 300)),
}
SOURCES = {"png": BOTH | PNG, "jpg": BOTH | JPEG, "fits": FITS}


def make_decoder(file_format: str, name: str) -> Decoder:
    module, make = SOURCES[file_format][name]
    return make(importlib.import_module(module))


def installed(file_format: str) -> dict[str, Decoder]:
    decoders = {}
    for name in SOURCES[file_format]:
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


def find_or_make_up_cubes(folder: Path | None, count: int) -> list[NDArray[np.float32]]:
    """Fluxes in three bands of 424 x 424 pixels, with noise as real ones have it."""
    if folder is not None:
        return [fits_images.read_bands(path) for path in images.find_images(folder, "fits")[:count]]
    generator = np.random.default_rng(0)
    cubes = [np.moveaxis(galaxies.make_up(generator, 424), -1, 0) for _ in range(count)]
    return [np.asarray(cube / 500 + generator.normal(0, 0.005, cube.shape), np.float32) for cube in cubes]


def pack(cubes: list[NDArray[np.float32]], scratch: Path) -> dict[str, list[Path]]:
    """The same cubes packed in several ways."""
    tiles = {".fz, RICE": ("RICE_1", 16), ".fz, GZIP without loss": ("GZIP_1", 0)}
    packed: dict[str, list[Path]] = {way: [] for way in ("plain", ".gz", *tiles)}
    for number, cube in enumerate(cubes):
        for way in ("plain", ".gz"):
            packed[way].append(scratch / f"{number}.fits{way.removeprefix('plain')}")
            fits.writeto(packed[way][-1], cube)
        for way, (compression, level) in tiles.items():
            packed[way].append(scratch / f"{number}-{compression}.fits.fz")
            hdu = fits.CompImageHDU(cube, compression_type=compression, quantize_level=level)
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(packed[way][-1])
    return packed


def compare_fits(folder: Path | None, count: int, repeats: int) -> None:
    decoders = installed("fits")
    with tempfile.TemporaryDirectory() as scratch:
        packed = pack(find_or_make_up_cubes(folder, count), Path(scratch))
        cases = {
            (name, way): partial(exhaust, map, decoder, paths)
            for name, decoder in decoders.items()
            for way, paths in packed.items()
        }
        seconds = timing.interleave(cases, repeats)
        sizes = [sum(path.stat().st_size for path in paths) / len(paths) for paths in packed.values()]
    rows = [[name, *(f"{1000 * seconds[name, way] / count:.2f}" for way in packed)] for name in decoders]
    timing.print_rows(["ms per FITS cube", *packed], [*rows, ["KiB", *(f"{size / 1024:.0f}" for size in sizes)]])
    timing.print_machine(repeats)


def compare(folder: Path | None, file_format: str, count: int, repeats: int) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadPoolExecutor(2) as threads,
        ProcessPoolExecutor(2, get_context("spawn")) as processes,
    ):
        found = galaxies.find_or_make_up(folder, Path(scratch), count=count, file_format=file_format)
        decoders = installed(file_format)
        cases = make_cases(decoders, file_format, tuple(found[:count]), threads, processes)
        seconds = timing.interleave(cases, repeats, warm_ups=2)  # both processes import and read
    ways = list(dict.fromkeys(way for _, way in cases))
    fastest = sorted(decoders, key=lambda name: seconds[name, ways[0]])
    rows = [[name, *(f"{1000 * seconds[name, way] / count:.2f}" for way in ways)] for name in fastest]
    timing.print_rows([f"ms per {file_format}", *ways], rows)
    timing.print_machine(repeats)


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--file-format", choices=list(SOURCES), default="png")
    parser.add_argument("--count", type=int, default=40, help="images")
    args = parser.parse_args()
    count, repeats = (4, 1) if args.quick else (args.count, args.repeats)
    if args.file_format == "fits":
        compare_fits(args.folder, count, repeats)
    else:
        compare(args.folder, args.file_format, count, repeats)


if __name__ == "__main__":
    main()
