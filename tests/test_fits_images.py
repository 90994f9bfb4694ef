"""FITS images: the same known pixels through every form that files have, and every fault named."""

import gzip
import json
import math
import os
import re
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from zoobot.data import fits_files, images
from zoobot.data.fits_images import FitsConfig, FitsLayout, read_bands
from zoobot.data.stretch import STRETCHES, Stretch
from zoobot.errors import ImageError, SettingError

Pixels = NDArray[np.generic]

# No two values are the same, and all are whole and above 0, so that every type holds them.
PLANE = np.arange(1, 43, dtype=np.float32).reshape(6, 7)
CUBE = np.stack([PLANE, PLANE + 50, PLANE + 100])  # g, r, z
COLOURS = CUBE[::-1]  # z, r, g are red, green, blue


def write(path: Path, *extensions: Any, **cards: object) -> Path:
    """Write arrays or HDUs, the first as the primary one; cards go into its header."""
    first, *others = extensions or (None,)
    primary = first if isinstance(first, fits.PrimaryHDU) else fits.PrimaryHDU(first)
    primary.header.update(cards)
    hdus = [primary, *(each if hasattr(each, "header") else fits.ImageHDU(each) for each in others)]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "12.fits"


def assert_reads(expected: Pixels, file: str | Path, **layout: Any) -> None:
    bands = read_bands(file, FitsLayout(**layout))
    assert bands.dtype == np.float32
    assert bands.flags.c_contiguous
    np.testing.assert_array_equal(bands, np.asarray(expected).reshape(-1, *np.shape(expected)[-2:]))


def assert_fails(message: str, file: str | Path, **layout: Any) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_bands(file, FitsLayout(**layout))
    assert str(caught.value).startswith(f"cannot read image {file}: ")
    assert len(str(caught.value)) < 600 + len(str(file))


# Where the image is


def test_a_plane_or_a_cube_in_the_primary_extension(file: Path, tmp_path: Path) -> None:
    assert_reads(PLANE, write(file, PLANE))
    assert_reads(COLOURS, write(tmp_path / "cube.fits", CUBE))


def test_extensions_by_number_and_name(file: Path) -> None:
    write(file, None, fits.ImageHDU(PLANE, name="SCI"), fits.ImageHDU(2 * PLANE, name="model"))
    assert_reads(PLANE, file)
    assert_reads(PLANE, file, hdu=1)
    assert_reads(2 * PLANE, file, hdu=2)
    for name in ("MODEL", "model", "Model"):
        assert_reads(2 * PLANE, file, hdu=name)
    found = r"it has 0 PRIMARY, 1 SCI, 2 MODEL$"
    assert_fails(rf"\(the extension ERR was looked for\); {found}", file, hdu="err")
    assert_fails(rf"\(the extension 3 was looked for\); {found}", file, hdu=3)
    assert_fails(r"its extension 0 holds no image$", file, hdu=0)


def test_the_first_image_is_found_behind_tables(file: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(3.0))], name="CAT")
    write(file, np.arange(5.0), table, PLANE)
    assert_reads(PLANE, file)
    assert_fails("its extension CAT holds no image", file, hdu="CAT")
    assert_fails("its extension 0 holds no image", file, hdu=0)


@pytest.mark.parametrize("shape", [(1, 6, 7), (1, 1, 6, 7), (1, 1, 1, 6, 7)])
def test_axes_of_length_one(file: Path, shape: tuple[int, ...]) -> None:
    assert_reads(PLANE, write(file, PLANE.reshape(shape)))


def test_a_cube_with_an_outer_axis_of_length_one(file: Path) -> None:
    assert_reads(COLOURS, write(file, CUBE[None]))
    assert_reads(CUBE[1, 2:5, 1:3], f"{file}[2:3,3:5]", bands=("1",))


# Bands


@pytest.mark.parametrize("last", [False, True])
def test_bands_by_number(file: Path, last: bool) -> None:
    write(file, np.moveaxis(CUBE, 0, -1) if last else CUBE)
    assert_reads(COLOURS, file, bands_last=last)
    assert_reads(CUBE[[0, 2, 1]], file, bands=("0", "2", "1"), bands_last=last)
    assert_reads(CUBE[1], file, bands=("1",), bands_last=last)
    assert_reads(CUBE[[1, 1, 1]], file, bands=("1", "1", "1"), bands_last=last)
    assert_fails("it has no band '3'; it has 0 to 2", file, bands=("3",), bands_last=last)
    assert_fails("it has no band '-1'", file, bands=("-1",), bands_last=last)
    assert_fails("it has no band 'g'", file, bands=("g",), bands_last=last)


@pytest.mark.parametrize(
    "cards",
    [
        {"BANDS": "grz"},
        {"BANDS": "g,r,z"},
        {"BANDS": "g r z"},
        {"BAND0": "g", "BAND1": "r", "BAND2": "z"},
        {"BANDS": "unknown", "BAND0": "g", "BAND1": "r", "BAND2": "z"},
    ],
)
def test_bands_by_name(file: Path, tmp_path: Path, cards: dict[str, str]) -> None:
    write(file, CUBE, **cards)
    write(tmp_path / "extension.fits", None, CUBE, **cards)  # the names may be in the primary header
    for path in (file, tmp_path / "extension.fits"):
        assert_reads(CUBE[[2, 0, 1]], path, bands=("z", "g", "r"))
        assert_reads(CUBE[1], path, bands=("r",))
        assert_reads(CUBE[1], path, bands=("1",))
        assert_fails("it has no band 'i'; it has g, r, z, or 0 to 2", path, bands=("i",))


def test_a_plane_without_a_name_is_whatever_band_a_catalog_has_it_for(file: Path, tmp_path: Path) -> None:
    assert_reads(PLANE, write(file, PLANE, BANDS=" "), bands=("r",))
    assert_fails("it has no band '1'; it has 0 to 0", file, bands=("1",))
    assert_fails("it has no band 'z'; it has 0 to 0", file, bands=("z", "r", "g"))
    assert_fails("it has no band 'r'; it has g, or 0 to 0", write(tmp_path / "g.fits", PLANE, BANDS="g"), bands=("r",))


def test_long_band_names(file: Path) -> None:
    write(file, CUBE, BANDS="F115W, F150W, F277W")
    assert_reads(COLOURS, file, bands=("F277W", "F150W", "F115W"))


def test_other_numbers_of_bands_must_be_chosen_from(file: Path) -> None:
    write(file, np.concatenate([CUBE, CUBE[:2] + 200]), BANDS="ugriz")
    assert_fails(r"it has 5 bands; say which are red, green and blue \(--bands z,i,r\)", file)
    assert_reads(np.stack([CUBE[0] + 200, CUBE[2], CUBE[1]]), file, bands=("i", "r", "g"))


# Kinds of numbers


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_every_type(tmp_path: Path, kind: str, suffix: str) -> None:
    file = write(tmp_path / f"12{suffix}", CUBE.astype(kind))
    assert_reads(COLOURS, file)
    assert_reads(COLOURS[:, 1:3, 2:7], f"{file}[3:7,2:3]")


def test_integers_are_scaled(file: Path) -> None:
    stored = fits.PrimaryHDU(np.arange(42, dtype=np.int16).reshape(6, 7))
    write(file, stored)
    with fits.open(file, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header.update(BSCALE=0.5, BZERO=-3.0, BLANK=7)
    expected = np.arange(42.0).reshape(6, 7) * 0.5 - 3
    expected[1, 0] = np.nan
    assert_reads(expected, file)
    assert_reads(expected[1:3], f"{file}[1:7,2:3]")


def test_blank_is_bad_in_integers_without_a_scale(file: Path) -> None:
    write(file, PLANE.astype(np.int32), BLANK=9)
    assert_reads(np.where(PLANE == 9, np.nan, PLANE), file)


# Compressed


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "NOCOMPRESS"])
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4"])
@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 6, 7), (2, 4, 4)])
def test_compressed_integers(tmp_path: Path, compression: str, kind: str, shape: tuple[int, ...]) -> None:
    hdu = fits.CompImageHDU(CUBE.astype(kind), compression_type=compression, tile_shape=shape)
    file = write(tmp_path / "12.fits.fz", None, hdu)
    assert_reads(COLOURS, file)
    assert_reads(COLOURS[:, 1:4, 2:6], f"{file}[3:6,2:4]")
    assert_reads(CUBE[1], file, bands=("1",), hdu="COMPRESSED_IMAGE")


@pytest.mark.parametrize("compression", ["HCOMPRESS_1", "PLIO_1"])
def test_compressions_that_astropy_unpacks_unsafely(file: Path, compression: str) -> None:
    hdu = fits.CompImageHDU(PLANE.astype(np.int32), compression_type=compression, tile_shape=(6, 7))
    assert_fails(rf"packed as {compression}, expected RICE_1, GZIP_1 or GZIP_2; unpack", write(file, None, hdu))


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("compression", ["GZIP_1", "GZIP_2"])
def test_losslessly_compressed_floats(tmp_path: Path, kind: str, compression: str) -> None:
    values = (CUBE / 3).astype(kind)
    values[0, 2, 3] = np.nan
    hdu = fits.CompImageHDU(values, compression_type=compression, quantize_level=0)
    file = write(tmp_path / "12.fits.fz", None, hdu)
    assert_reads(values[::-1].astype(np.float32), file)
    assert_reads(values[0, 2:4, 1:6].astype(np.float32), f"{file}[2:6,3:4]", bands=("0",))


@pytest.mark.parametrize("dither", [0, 1, 2])
def test_quantised_floats_are_as_near_as_their_noise_allows(tmp_path: Path, dither: int) -> None:
    values = np.random.default_rng(0).normal(5, 1, (3, 40, 50)).astype(np.float32)
    values[:, 10, 10] = np.nan
    hdu = fits.CompImageHDU(
        values, compression_type="RICE_1", quantize_level=16, quantize_method=dither - (dither == 0)
    )
    bands = read_bands(write(tmp_path / "12.fits.fz", None, hdu))
    assert np.isnan(bands[:, 10, 10]).all()
    assert np.nanmax(np.abs(bands - values[::-1])) <= 1.5 / 16
    assert np.isnan(bands).sum() == 3


@pytest.mark.parametrize("content", [PLANE, CUBE])
def test_the_same_from_every_packing(tmp_path: Path, content: Pixels) -> None:
    plain = write(tmp_path / "12.fits", content)
    for suffix in (".fits.gz", ".renamed"):
        packed = tmp_path / f"13{suffix}"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        assert_reads(content[::-1] if content.ndim == 3 else content, packed)


# Bad pixels


def test_nan_and_infinities_and_absurd_values_are_bad(file: Path) -> None:
    values = PLANE.copy()
    values[0, :5] = np.nan, np.inf, -np.inf, 1e38, -1.6e38
    assert_reads(np.where((PLANE < 6), np.nan, PLANE), write(file, values))


def test_doubles_beyond_float32_are_bad(file: Path) -> None:
    assert_reads(np.where(PLANE == 1, np.nan, PLANE), write(file, np.where(PLANE == 1, -1.8e308, PLANE)))


def test_zeros_are_bad_in_floats_and_not_in_integers(file: Path, tmp_path: Path) -> None:
    values = np.where(PLANE < 9, 0, PLANE)
    write(file, values)
    assert_reads(np.where(PLANE < 9, np.nan, PLANE), file)
    assert_reads(values, file, zeros_are_bad=False)
    assert_reads(values, write(tmp_path / "integers.fits", values.astype(np.int16)))


@pytest.mark.parametrize("last", [False, True])
def test_masks(file: Path, last: bool) -> None:
    flat = (PLANE % 5 == 0).astype(np.uint8)
    each = np.stack([flat, 0 * flat, 4 * flat[::-1]])
    turn: Callable[[Pixels], Pixels] = (lambda cube: np.moveaxis(cube, 0, -1)) if last else (lambda cube: cube)
    masks = [fits.ImageHDU(flat, name="MASK"), fits.CompImageHDU(turn(each).astype(np.int32), name="MASKS")]
    write(file, turn(CUBE), *masks)
    assert_reads(np.where(flat, np.nan, COLOURS), file, mask_hdu="mask", bands_last=last)
    assert_reads(np.where(each[::-1], np.nan, COLOURS), file, mask_hdu=2, bands_last=last)
    assert_reads(CUBE[1], file, mask_hdu=2, bands=("1",), bands_last=last)
    assert_reads(np.where(each[2], np.nan, CUBE[2])[3:], f"{file}[1:7,4:6]", mask_hdu=2, bands=("2",), bands_last=last)


def test_masks_that_do_not_fit(file: Path) -> None:
    write(file, CUBE, PLANE[:5], CUBE[:2])
    assert_fails("its mask is of 7 x 5 pixels and 1 bands, its image of 7 x 6 pixels and 3 bands", file, mask_hdu=1)
    assert_fails("its mask is of 7 x 6 pixels and 2 bands", file, mask_hdu=2)
    assert_fails("the extension MASK was looked for", file, mask_hdu="MASK")


@pytest.mark.parametrize("value", [np.nan, 0.0, np.inf])
def test_not_one_good_pixel(file: Path, value: float) -> None:
    values = CUBE.copy()
    values[1] = value
    write(file, values)
    assert_fails("it has no good pixel in the bands that are used", file, bands=("1",))
    assert np.isnan(read_bands(file)).sum() == PLANE.size


# Zero points


def test_zero_points(file: Path) -> None:
    write(file, None, fits.ImageHDU(PLANE, fits.Header({"MAGZERO": 25.0})), MAGZPT=20, TEXT="25", NAN="")
    nanomaggies = PLANE * np.float32(0.1)
    np.testing.assert_allclose(read_bands(file, FitsLayout(zero_point=25.0))[0], nanomaggies, rtol=1e-6)
    np.testing.assert_allclose(read_bands(file, FitsLayout(zero_point="MAGZERO"))[0], nanomaggies, rtol=1e-6)
    np.testing.assert_allclose(read_bands(file, FitsLayout(zero_point="MAGZPT"))[0], 10 * PLANE, rtol=1e-6)
    assert_reads(PLANE, file, zero_point=22.5)
    for keyword in ("TEXT", "ABSENT", "NAN"):
        assert_fails(f"its header has no zero point {keyword}", file, zero_point=keyword)


# Several files


@pytest.fixture
def single_bands(tmp_path: Path) -> str:
    for name, plane in zip("grz", CUBE, strict=True):
        write(tmp_path / f"12-{name}.fits", plane)
    return str(tmp_path / "12-{g,r,z}.fits")


def test_a_file_for_each_band(single_bands: str) -> None:
    assert_reads(COLOURS, single_bands)
    assert_reads(CUBE[[0, 2, 1]], single_bands, bands=("g", "z", "r"))
    assert_reads(CUBE[2], single_bands, bands=("z",))
    assert_reads(CUBE[1], single_bands, bands=("1",))
    assert_reads(CUBE, single_bands, bands=("red", "green", "blue"))  # columns of a catalog, in that order
    assert_reads(COLOURS[:, 2:4, 1:3], f"{single_bands}[2:3,3:4]")
    assert_fails("it has no band 'i'; it has g, r, z, or 0 to 2", single_bands, bands=("i",))


def test_a_file_for_each_band_in_folders_and_packed(tmp_path: Path) -> None:
    for name, plane in zip("grz", CUBE, strict=True):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "12.fits.gz", plane)
    assert_reads(CUBE[[1, 0, 2]], tmp_path / "{g,r,z}" / "12.fits.gz", bands=("r", "g", "z"))


def test_faults_of_one_file_of_several(single_bands: str, tmp_path: Path) -> None:
    (tmp_path / "12-r.fits").unlink()
    assert_fails("12-r.fits: No such file or directory", single_bands)
    write(tmp_path / "12-r.fits", PLANE[1:])
    assert_fails("its bands differ in size: 7 x 6, 7 x 5, 7 x 6 pixels", single_bands)
    (tmp_path / "12-r.fits").unlink()
    write(tmp_path / "12-r.fits", CUBE)
    assert_fails("each file of several must hold one band", single_bands)
    two = single_bands.replace(",z", "")
    assert_fails("it has 2 bands; say which", two)


def test_a_file_whose_name_looks_like_a_pattern_or_a_section(tmp_path: Path) -> None:
    for name in ("12-{g,r}.fits", "12.fits[1:2,1:2]"):
        assert_reads(PLANE, write(tmp_path / name, PLANE))


# Sections


@pytest.mark.parametrize("content", [PLANE, CUBE[:1]])
def test_sections(file: Path, content: Pixels) -> None:
    write(file, content)
    assert_reads(PLANE, f"{file}[1:7,1:6]")
    assert_reads(PLANE[4:5, 2:3], f"{file}[3:3,5:5]")
    assert_reads(PLANE[1:4, 0:2], f"{file}[1:2,2:4]")


@pytest.mark.parametrize("compressed", [False, True])
def test_what_lies_beyond_the_edges_is_bad(tmp_path: Path, compressed: bool) -> None:
    file = tmp_path / "mosaic.fits"
    if compressed:
        write(file, None, fits.CompImageHDU(PLANE.astype(np.int32), tile_shape=(2, 3)))
    else:
        write(file, PLANE)
    padded = np.pad(PLANE, 4, constant_values=np.nan)
    assert_reads(padded, f"{file}[-3:11,-3:10]")
    assert_reads(padded[:6, 6:], f"{file}[3:11,-3:2]")
    assert_reads(padded[7:, :5], f"{file}[-3:1,4:10]")
    for beyond in ("[8:9,1:2]", "[-5:0,1:2]", "[1:2,7:9]", "[-900:-800,-700:-600]"):
        assert_fails("it has no good pixel", f"{file}{beyond}")


def test_sections_that_are_none(file: Path) -> None:
    write(file, PLANE)
    assert_fails("its section is of -3 x 2 pixels", f"{file}[5:1,1:2]")
    assert_fails("more than the 67108864 allowed", f"{file}[1:100000,1:100000]")
    assert_fails("No such file", f"{file}[1:2]")
    assert_fails("No such file", f"{file}.absent[1:2,1:2]")


def test_of_a_mosaic_only_the_section_is_read(file: Path) -> None:
    header = fits.PrimaryHDU(np.zeros((1, 1), np.float32)).header
    header.update(NAXIS1=8000, NAXIS2=8000)
    file.write_bytes(header.tostring().encode())
    size = len(header.tostring()) + 4 * 8000 * 8000
    os.truncate(file, -(-size // 2880) * 2880)  # 256 MB that take no room on the disk
    tracemalloc.start()
    assert_reads(np.zeros((50, 40)), f"{file}[4001:4040,4001:4050]", zeros_are_bad=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


# Faults


def lying(file: Path, **cards: int) -> Path:
    """A small image whose header tells of another."""
    content = write(file, PLANE).read_bytes()
    for keyword, value in cards.items():
        card = f"{keyword:<8}= {value:>20}".encode()
        content = re.sub(rb"%s *= +-?\d+" % keyword.encode(), card, content, count=1)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"NAXIS1": 10**9}, "truncated: its header tells of 24000002880 bytes, it has 5760"),
        ({"NAXIS1": 10**9, "NAXIS2": 10**9}, "."),
        ({"NAXIS1": 9 * 10**18, "NAXIS2": 9 * 10**18}, "."),
        ({"NAXIS1": 0}, "."),
        ({"NAXIS1": -7}, "."),
        ({"NAXIS": 3}, "."),
        ({"NAXIS": 3, "NAXIS1": 10**9}, "."),
        ({"NAXIS": 10**9}, "its NAXIS is 1000000000, more than the 999 that FITS allows"),  # astropy would hang
        ({"BITPIX": 7}, "."),
        ({"BITPIX": 64}, "."),
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(file: Path, cards: dict[str, int], message: str) -> None:
    lying(file, **cards)
    tracemalloc.start()
    if cards == {"BITPIX": 64}:
        read_bands(file)  # fits into the padding, so nobody can tell
    else:
        assert_fails(message, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_too_many_pixels(file: Path) -> None:
    header = fits.PrimaryHDU(np.zeros((1, 1), np.uint8)).header
    header.update(NAXIS1=8193, NAXIS2=8193)
    file.write_bytes(header.tostring().encode())
    os.truncate(file, 2880 + 2880 * math.ceil(8193**2 / 2880))
    assert_fails("it has 8193 x 8193 pixels, more than the 67108864 allowed", file)


def test_every_truncation_is_an_error(file: Path) -> None:
    content = write(file, None, CUBE.repeat(20, axis=1)).read_bytes()
    packed = gzip.compress(content)
    for end in (0, 5, 80, 2879, 2880, 2881, 5000, 5760, len(content) // 2, len(content) - 2880):
        file.write_bytes(content[:end])
        assert_fails("it is empty" if end == 0 else ".", file)
    for end in (2, 9, 20, len(packed) // 2, len(packed) - 1):
        file.write_bytes(packed[:end])
        assert_fails(".", file)
    file.write_bytes(content[:-2880])
    assert_fails(rf"truncated: its header tells of \d+ bytes, it has {len(content) - 2880}", file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello", "it is no FITS file, it begins with b'hello'"),
        (b"SIMPLE  = garbage", "."),
        (b"SIMPLE  =                    T".ljust(2880), "."),
        (gzip.compress(b"hello"), "it is no FITS file, it begins with b'hello'"),
        (gzip.compress(b""), "it is empty"),
        (gzip.compress(gzip.compress(b"SIMPLE  =")), "it is no FITS file"),
        (b"\x1f\x8bgarbage", "."),
    ],
)
def test_files_that_are_no_fits(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    assert_fails(message, file)


def test_files_without_an_image(file: Path, tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(3.0))], name="CAT")
    nothing = r"it has no extension with an image \(an image was looked for\); it has 0 PRIMARY"
    assert_fails(f"{nothing}, 1 CAT$", write(file, None, table))
    assert_fails(f"{nothing}$", write(tmp_path / "nothing.fits"))
    assert_fails(f"{nothing}$", write(tmp_path / "spectrum.fits", np.arange(5.0)))
    four = write(tmp_path / "four.fits", np.zeros((2, 3, 4, 5), np.float32))
    assert_fails(r"its image has the axes \(2, 3, 4, 5\), expected two, or three", four)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert_fails("No such file or directory", tmp_path / "absent.fits")
    assert_fails("it is a folder, a pipe or a device", tmp_path)
    assert_fails(".", str(tmp_path / ("x" * 300)))
    assert_fails(".", str(tmp_path / "a\0b"))
    os.mkfifo(tmp_path / "pipe.fits")
    assert_fails("it is a folder, a pipe or a device", tmp_path / "pipe.fits")
    (tmp_path / "loop.fits").symlink_to(tmp_path / "loop.fits")
    assert_fails("symbolic links", tmp_path / "loop.fits")


def test_a_gzip_bomb(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits_files, "_MOST_UNPACKED", 2**20)
    file.write_bytes(gzip.compress(write(file, PLANE).read_bytes() + bytes(2**20)))
    assert_fails("it unpacks to more than 1 MiB; unpack it, or compress it as .fits.fz", file)


def compressed(file: Path, **cards: int) -> Path:
    """A tile-compressed image, with other numbers in the header of its table."""
    hdu = fits.CompImageHDU(PLANE.astype(np.int32), compression_type="RICE_1")
    content = write(file, None, hdu).read_bytes()
    for keyword, value in cards.items():
        start = content.index(f"{keyword:<8}=".encode())
        content = content[:start] + f"{keyword:<8}= {value:>20}".encode().ljust(80) + content[start + 80 :]
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"ZTILE1": 10**9}, "its tiles have 1000000000 pixels, expected 1 to 67108864"),
        ({"ZTILE1": 0}, "its tiles have 0 pixels"),
        ({"ZTILE1": -7}, "its tiles have -7 pixels"),
        ({"ZTILE1": 1}, "."),
        ({"ZTILE1": 1, "ZNAXIS1": 8192, "ZNAXIS2": 8192}, "."),
        ({"ZVAL2": -4}, "its tiles are packed with BYTEPIX -4, expected 1, 2, 4 or 8"),  # astropy crashes
        ({"ZVAL2": 0}, "BYTEPIX 0"),
        ({"ZVAL1": 0}, "."),
        ({"ZVAL1": -32}, "."),
        ({"ZNAXIS1": 10**9}, "more than the 67108864 allowed"),
        ({"ZNAXIS1": -7}, "its image has the axes"),
        ({"ZNAXIS2": 1000}, "."),
        ({"ZBITPIX": 5}, "."),
        ({"PCOUNT": 10**12}, "it is truncated: its header tells of"),
        ({"NAXIS2": 10**12}, "it is truncated: its header tells of"),
        ({"TFIELDS": 999}, "."),
        ({"TFIELDS": 10**9}, "its TFIELDS is 1000000000, more than"),
        ({"ZNAXIS": 10**9}, "its ZNAXIS is 1000000000, more than"),
        ({"NAXIS": 10**9}, "."),
    ],
)
def test_tiles_that_lie(file: Path, cards: dict[str, int], message: str) -> None:
    assert_fails(message, compressed(file, **cards))


@pytest.mark.parametrize("card", ["NAXIS   = 123456789", "naxis   =+0123456789", "HIERARCH NAXIS = 123456789"])
def test_an_absurd_card_does_not_hide_behind_a_good_one(file: Path, card: str) -> None:
    content = write(file, PLANE, OBJECT="12").read_bytes()
    start = content.index(b"OBJECT  =")
    file.write_bytes(content[:start] + card.encode().ljust(80) + content[start + 80 :])
    assert_fails(r"its (NAXIS|naxis) is 0?123456789, more than", file)


@pytest.mark.parametrize("extend", ["", "F", "0"])
def test_an_absurd_extension_is_not_read_ahead(file: Path, extend: str) -> None:
    content = compressed(file, TFIELDS=10**9).read_bytes()
    found = re.search(rb"EXTEND  = {20}T.{50}", content)
    assert found
    file.write_bytes(content.replace(found[0], f"EXTEND  = {extend:>20}".encode().ljust(len(found[0]))))
    assert_fails("its TFIELDS is 1000000000, more than", file)


def test_headers_without_an_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits_files, "_LONGEST_HEADER", 400)
    content = write(file, PLANE).read_bytes()
    file.write_bytes(content[:2880].replace(b"END", b"   ") + b" " * 2880 * 400)
    assert_fails("its header has more than 1 MiB", file)


def test_long_reasons_are_cut(file: Path) -> None:
    write(file, None, *[fits.ImageHDU(name=f"NOTHING{number}") for number in range(60)])
    assert_fails(r"it has no extension with an image .* 5 NOTHING4, .*…$", file)


def test_a_damaged_card_does_not_hide_an_absurd_one(file: Path) -> None:
    content = compressed(file, TFIELDS=10**9).read_bytes()
    file.write_bytes(content.replace(b"ZNAXIS  =                    2", b"ZNAXIS  =                  ' 2"))
    assert_fails("its TFIELDS is 1000000000, more than", file)


def test_more_bands_than_anyone_can_count(file: Path) -> None:
    content = write(file, None, fits.CompImageHDU(CUBE.astype(np.int32), tile_shape=(1, 6, 7))).read_bytes()
    file.write_bytes(content.replace(b"ZNAXIS3 =                    3", b"ZNAXIS3 =  9999999999999999999"))
    assert_fails("it has 9999999999999999999 bands; say which", file)
    assert_fails("it has no band 'g'; it has 0 to 9999999999999999998", file, bands=("g",))


def test_a_gzip_bomb_in_a_tile(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fits.CompImageHDU(PLANE.astype(np.int32), compression_type="GZIP_1", tile_shape=PLANE.shape)
    write(file, None, honest)
    with fits.open(file, disable_image_compression=True) as hdus:
        cards = [card for card in hdus[1].header.cards if card.keyword.startswith("Z")]
    file.unlink()
    bomb = np.frombuffer(gzip.compress(bytes(2**24)), np.uint8)
    column = fits.Column("COMPRESSED_DATA", "1PB()", array=np.array([bomb], dtype=object))
    table = fits.BinTableHDU.from_columns([column])
    table.header.extend(cards)
    write(file, None, table)
    assert_fails("cannot reshape", file)  # small enough to be unpacked
    monkeypatch.setattr(fits_files, "_SAFE_PACKED", 1000)
    assert_fails("its tile 0 unpacks to more than its 42 pixels", file)


def test_large_gzipped_tiles_are_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits_files, "_SAFE_PACKED", 1)
    hdu = fits.CompImageHDU(PLANE, compression_type="GZIP_2", quantize_level=0, tile_shape=PLANE.shape)
    assert_reads(PLANE, write(file, None, hdu))


# Settings


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        [],
        {"extension": 1},
        {"hdu": -1},
        {"hdu": ""},
        {"hdu": 1.5},
        {"hdu": True},
        {"mask_hdu": []},
        {"bands": ["a", "b"]},
        {"bands": "grz"},
        {"bands": [0, 1, 2]},
        {"bands": ["g", "r", ""]},
        {"bands": {"g": 1}},
        {"bands_last": "yes"},
        {"zeros_are_bad": 0},
        {"zero_point": True},
        {"zero_point": ""},
        {"zero_point": float("nan")},
        {"zero_point": 1e9},
        {"zero_point": [25]},
    ],
)
def test_hostile_settings_are_refused(content: Any) -> None:
    with pytest.raises(SettingError, match=r"got .*, expected"):
        FitsLayout.from_dict(content)
    with pytest.raises(SettingError, match=r"got .*, expected"):
        FitsConfig.from_dict({"layout": content, "stretch": {}})
    with pytest.raises(SettingError, match="expected a layout and a stretch"):
        FitsConfig.from_dict({"layout": content})


def test_settings_come_back_from_json() -> None:
    layout = FitsLayout(hdu=2, bands=("z", "r", "g"), bands_last=True, mask_hdu="DQ", zero_point="MAGZERO")
    assert FitsLayout.from_dict(json.loads(json.dumps(vars(layout)))) == layout


# Threads


def test_threads_read_the_same_and_leave_warnings_as_they_were(single_bands: str, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.fits"
    truncated.write_bytes(write(tmp_path / "whole.fits", CUBE.repeat(20, axis=1)).read_bytes()[:-2880])

    def read(number: int) -> bool:
        if number % 3 == 0:
            assert_fails("truncated", truncated)
        return bool((read_bands(single_bands) == COLOURS).all())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(48)))
        assert warnings.filters == filters
        assert not caught
        warnings.warn("this one is seen", stacklevel=1)
        assert len(caught) == 1


# As pictures


LINEAR = FitsConfig(stretch=Stretch(upper=255.0, curve="linear", softening=1.0, keep_colour=False))


def test_the_first_row_is_at_the_bottom(file: Path) -> None:
    square = PLANE[:, :6]
    picture = images.read_picture(write(file, square), fits=LINEAR)
    assert np.array_equal(picture.pixels, np.repeat(square[::-1, :, None], 3, axis=2))
    assert picture.bad_pixels == 0
    assert np.array_equal(images.read_image(file, fits=LINEAR), picture.pixels)


def test_bands_become_red_green_and_blue(file: Path) -> None:
    write(file, CUBE[:, :, :6])
    pixels = images.read_image(file, fits=LINEAR)
    assert np.array_equal(np.moveaxis(pixels, -1, 0), COLOURS[:, ::-1, :6])
    grey = images.read_image(file, channels=1, fits=LINEAR)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 0.51
    one = FitsConfig(FitsLayout(bands=("2",)), LINEAR.stretch)
    assert np.array_equal(images.read_image(file, channels=1, fits=one)[..., 0], CUBE[2, ::-1, :6])


def test_pictures_are_resized(file: Path) -> None:
    y, x = np.mgrid[:90, :90] / 90
    write(file, (60 * np.stack([1 + x, 1 + y, 2 + x - y])).astype(np.float32))
    for channels in (1, 3):
        whole = images.read_image(file, channels=channels, fits=LINEAR)
        half = images.read_image(file, channels=channels, size=45, fits=LINEAR)
        assert half.shape == (45, 45, channels)
        means = whole.reshape(45, 2, 45, 2, channels).mean(axis=(1, 3))
        assert np.abs(half - means).max() <= 1


def test_bad_pixels_are_counted_once_and_only_in_the_square(file: Path) -> None:
    values = np.tile(np.float32(100), (3, 10, 14))
    values[0, 5, 5] = np.nan
    values[1, 5, 5] = np.inf
    values[2, 6, 6] = 0
    values[:, 3, 0] = np.nan  # cropped away
    write(file, values)
    assert images.read_picture(file, size=5, fits=LINEAR).bad_pixels == 2
    padded = images.read_picture(file, fit="pad", fits=LINEAR)
    assert padded.bad_pixels == 3
    assert padded.pixels.shape == (14, 14, 3)
    assert not padded.pixels[:2].any()  # sky, which here is black
    assert padded.pixels[2 + 9 - 5, 5].tolist() == [100, 100, 100]
    assert (padded.pixels[2:12] == 100).sum() == 3 * (140 - 1)


def test_pictures_of_sections_and_of_several_files(single_bands: str) -> None:
    pixels = images.read_image(f"{single_bands}[1:6,1:6]", fits=LINEAR)
    assert np.array_equal(np.moveaxis(pixels, -1, 0), COLOURS[:, ::-1, :6])


def test_faults_of_pictures_name_the_file(file: Path, tmp_path: Path) -> None:
    write(file, PLANE)
    with pytest.raises(ImageError, match=r"12\.fits: stretch: got scales for 3 bands, and an image of one"):
        images.read_picture(file, fits=FitsConfig(stretch=STRETCHES["decals"]))
    long = write(tmp_path / "long.fits", np.ones((1, 9000), np.float32))
    with pytest.raises(ImageError, match=r"long\.fits: it has 9000 x 9000 pixels, more than"):
        images.read_picture(long, fit="pad")
    with pytest.raises(ImageError, match=r"absent-z\.fits: No such file"):
        images.read_picture(tmp_path / "absent-{g,r,z}.fits")
    with pytest.raises(ImageError, match=r"absent\.fits.*No such file"):
        images.read_picture(tmp_path / "absent.fits[1:2,1:2]")
    (tmp_path / "12.fits.gz").write_bytes(gzip.compress(b"a text"))
    with pytest.raises(ImageError, match=r"12\.fits\.gz: it is no FITS file"):
        images.read_picture(tmp_path / "12.fits.gz")


def test_real_cubes(shared_data: Path) -> None:
    folder = shared_data / "decals_fits"
    bands = read_bands(folder / "example_a.fits", FitsLayout(bands=("z", "r", "g")))
    np.testing.assert_array_equal(bands, fits.getdata(folder / "example_a.fits")[::-1])
    assert images.read_picture(folder / "example_bad_pix.fits", size=64).bad_pixels > 0
    with pytest.raises(ImageError, match=r"example_incomplete\.fits: it is truncated"):
        images.read_picture(folder / "example_incomplete.fits")
