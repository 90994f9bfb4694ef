"""One harness for each parser of strangers' files: any bytes give a result that makes sense, or a ZoobotError.

``fuzz.py`` feeds them, and ``tests/test_hostile.py`` replays through them what once broke something.
"""

import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from zoobot import schemas
from zoobot.data import images, shard_index, shards, tables, tfrecord
from zoobot.data.catalog import read_catalog
from zoobot.data.fits_images import FitsConfig, FitsLayout
from zoobot.data.stretch import STRETCHES
from zoobot.schemas import Schema

__all__ = ["CORPUS", "HARNESSES", "good_files"]

CORPUS = Path(__file__).parents[1] / "corpus"
_BETWEEN_RECORDS = b"--next--"
_LAYOUTS = (FitsLayout(), FitsLayout(hdu=1), FitsLayout(mask_hdu=1, zero_point="ZP"), FitsLayout(bands_last=True))
_SUFFIXES = (".csv", ".parquet", ".fits", ".ecsv", ".vot", ".fits.gz")


def read_tree(content: bytes, folder: Path) -> None:
    """A tree: a TOML file, or after a byte ``j`` the JSON of a manifest or a config."""
    if content[:1] == b"j":
        try:
            plain = json.loads(content[1:])
        except (ValueError, RecursionError):
            return
        schema = Schema.from_dict(plain)
    else:
        schema = schemas.load(_write(folder / "tree.toml", content))
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.draw()
    fractions = np.concatenate([np.full(len(q.answers), 1 / len(q.answers)) for q in schema.questions])
    asked = schema.proportion_asked(fractions)
    assert ((asked >= 0) & (asked <= 1 + 1e-9)).all()


def read_tfrecord(content: bytes, folder: Path) -> None:
    """A TFRecord file; after ``r`` records without frames, which get right checksums; after ``i`` an index."""
    path = folder / "f.tfrecord"
    shard_index.index_path(path).unlink(missing_ok=True)
    if content[:1] == b"r":
        _write(path, frame(*content[1:].split(_BETWEEN_RECORDS)))
    elif content[:1] == b"i":
        _write(path, frame(tfrecord.encode_example(GALAXY), tfrecord.encode_example(GALAXY)))
        _write(shard_index.index_path(path), content[1:])
    else:
        _write(path, content)
    dataset = shards.ShardDataset([path], keep_faulty=True)
    assert len(dataset.id_str) == len(dataset.votes) == len(dataset)
    if len(dataset):
        batch = dataset.__getitems__([0, len(dataset) - 1])
        assert tuple(batch.images.shape[1:]) == dataset.image_shape


def read_catalog_file(content: bytes, folder: Path) -> None:
    """A catalog, whose format the first byte says."""
    if content:
        path = _write(folder / f"catalog{_SUFFIXES[content[0] % len(_SUFFIXES)]}", content[1:])
        frame = tables.read_table(path)
        for name in {"id_str", "file_loc"}.intersection(frame.columns):
            assert all(isinstance(text, str) for text in frame[name])
        catalog = read_catalog(path, ["smooth", "disk"])
        assert ((catalog[["smooth", "disk"]] >= 0) & (catalog[["smooth", "disk"]] <= 1e6)).all(axis=None)
        assert catalog["id_str"].is_unique


def decode_image(content: bytes, folder: Path) -> None:
    """An image, decoded as the first byte says."""
    if content:
        how = content[0]
        size, channels = (None, 1, 7, 40)[how % 4], (1, 3)[how // 4 % 2]
        fit = ("crop", "pad")[how // 8 % 2]
        encoded = _with_checksums(content[1:]) if how // 16 % 2 else content[1:]
        pixels = images.decode_image(encoded, name="fuzzed", size=size, channels=channels, fit=fit)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == channels
        assert pixels.shape[0] == pixels.shape[1]
        assert size in (None, pixels.shape[0])


def read_fits_image(content: bytes, folder: Path) -> None:
    """A FITS image or cube, read and stretched as the first byte says."""
    if content:
        how = content[0]
        path = str(_write(folder / "image.fits", content[1:]))
        name = path if how % 2 else f"{path}[0:5,2:4]"
        layout = _LAYOUTS[how // 2 % len(_LAYOUTS)]
        stretch = list(STRETCHES.values())[how // 16 % len(STRETCHES)]
        channels = (1, 3)[how // 8 % 2]
        fits = FitsConfig(layout, stretch)
        pixels, bad_pixels = images.read_picture(name, size=(None, 7)[how % 2], channels=channels, fits=fits)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (pixels.shape[0], pixels.shape[0], channels)
        assert bad_pixels >= 0


HARNESSES: dict[str, Callable[[bytes, Path], None]] = {
    "tree": read_tree,
    "tfrecord": read_tfrecord,
    "catalog": read_catalog_file,
    "image": decode_image,
    "fits": read_fits_image,
}

GALAXY: dict[str, tfrecord.FeatureValue] = {
    "id_str": "a",
    "matrix": b"\7" * 12,
    "height": 2,
    "width": 2,
    "channels": 3,
    "smooth": 3.0,
    "disk": 1,
}


def frame(*records: bytes) -> bytes:
    """Records as a TFRecord file, with their checksums."""
    file = io.BytesIO()
    for record in records:
        tfrecord.write_record(file, record)
    return file.getvalue()


def _with_checksums(png: bytes) -> bytes:
    """A PNG with the right checksum after each chunk, without which few mutations get far."""
    mended, position = png[:8], 8
    while position + 12 <= len(png):
        end = position + 8 + int.from_bytes(png[position : position + 4], "big")
        chunk = png[position:end]
        mended += chunk + zlib.crc32(chunk[4:]).to_bytes(4, "big")
        position = end + 4
    return mended


def good_files(parser: str) -> Iterator[bytes]:
    """Small files without fault, for the fuzzer to begin with."""
    with tempfile.TemporaryDirectory() as name:
        yield from _GOOD[parser](Path(name))


def _good_trees(_: Path) -> Iterator[bytes]:
    for name in ("gz_rings", "gz2"):
        schema = schemas.load(name)
        yield b"j" + json.dumps(schema.to_dict()).encode()
        yield Path(schemas.__file__).with_name("trees").joinpath(f"{name}.toml").read_bytes()


def _good_tfrecords(folder: Path) -> Iterator[bytes]:
    raw = tfrecord.encode_example(GALAXY)
    picture = images.encode_image(np.full((4, 6, 3), 9, np.uint8), "png")
    encoded = tfrecord.encode_example({"image/encoded": picture, "image/height": 4, "image/filename": "x.png"})
    yield b"r" + raw
    yield b"r" + encoded + _BETWEEN_RECORDS + encoded
    path = _write(folder / "f.tfrecord", frame(raw, raw))
    yield path.read_bytes()
    shard_index.write_index(shard_index.index_tfrecord(path), path)
    yield b"i" + shard_index.index_path(path).read_bytes()


def _good_catalogs(folder: Path) -> Iterator[bytes]:
    (folder / "a.png").touch()
    table = pd.DataFrame(
        {"id_str": ["1", "é"], "file_loc": [str(folder / "a.png"), "/bin/sh"], "smooth": [3, 0], "disk": [1.5, 0.0]}
    )
    for number, suffix in enumerate(_SUFFIXES[:-1]):
        tables.write_table(table, folder / f"c{suffix}")
        yield bytes([number]) + (folder / f"c{suffix}").read_bytes()


def _good_images(_: Path) -> Iterator[bytes]:
    from PIL import Image

    rgb = Image.fromarray(np.arange(300, dtype=np.uint16).reshape(10, 10, 3).astype(np.uint8))
    grey16 = Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600)
    for how, (image, options) in enumerate(
        [
            (rgb, {"format": "PNG"}),
            (rgb.convert("P"), {"format": "PNG"}),
            (rgb.convert("1"), {"format": "PNG"}),
            (rgb.convert("LA"), {"format": "PNG"}),
            (grey16, {"format": "PNG"}),
            (rgb, {"format": "JPEG"}),
            (rgb.convert("CMYK"), {"format": "JPEG"}),
            (rgb.convert("L"), {"format": "JPEG", "progressive": True}),
        ]
    ):
        file = io.BytesIO()
        image.save(file, **options)
        yield bytes([how]) + file.getvalue()
        yield bytes([how + 16]) + file.getvalue()


def _good_fits_images(_: Path) -> Iterator[bytes]:
    from astropy.io import fits

    flux = np.arange(192, dtype=np.float32).reshape(3, 8, 8)
    whole = fits.ImageHDU((flux[0] * 10).astype(np.int16))
    whole.header["BLANK"] = 10
    scaled = fits.PrimaryHDU(flux[0].astype(np.int32))
    scaled.header["BSCALE"], scaled.header["BZERO"], scaled.header["ZP"] = 0.5, 3.0, 22.5
    files = [
        [fits.PrimaryHDU(flux[0])],
        [fits.PrimaryHDU(flux)],
        [fits.PrimaryHDU(np.moveaxis(flux, 0, 2))],
        [scaled, whole],
        [fits.PrimaryHDU(), fits.CompImageHDU(flux[1], compression_type="RICE_1")],
        [fits.PrimaryHDU(), fits.CompImageHDU(flux[2].astype(np.int16), compression_type="GZIP_2")],
    ]
    for layout, hdus in zip((0, 0, 3, 2, 1, 1), files, strict=True):
        file = io.BytesIO()
        fits.HDUList(hdus).writeto(file)
        yield bytes([33 + 2 * layout]) + file.getvalue()
        yield bytes([32 + 2 * layout]) + gzip.compress(file.getvalue())


_GOOD: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "tree": _good_trees,
    "tfrecord": _good_tfrecords,
    "catalog": _good_catalogs,
    "image": _good_images,
    "fits": _good_fits_images,
}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
