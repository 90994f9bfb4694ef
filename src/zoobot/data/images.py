"""Images: PNG, JPEG and FITS of any size and mode to square uint8 arrays, and back to bytes.

Each step is done by the library that ``benchmarks/decoding.py`` shows to be fastest at it: kornia_rs decodes
common PNGs, simplejpeg decodes JPEGs and opencv resizes; Pillow decodes what is rare (palettes, 1 bit, CMYK).
kornia_rs holds Python's interpreter lock while it decodes: processes read many PNGs faster than threads do.
"""

import contextlib
import io
import os
import stat
import struct
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import cv2
import kornia_rs.io
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zoobot.data import fits_images
from zoobot.data.band_files import split_files
from zoobot.data.fits_files import give_reason, is_fits
from zoobot.data.fits_images import FITS_SUFFIXES, FitsConfig
from zoobot.data.limits import MAX_PIXELS
from zoobot.data.remote_files import is_url, read_remote
from zoobot.data.stretch import apply_stretch, fill_bad
from zoobot.errors import ImageError, SettingError, ShardError

__all__ = ["Picture", "decode_image", "encode_image", "find_images", "read_image", "read_picture"]

_Kind = TypeVar("_Kind", bound=np.generic)

_SUFFIXES = {"png": (".png",), "jpg": (".jpg", ".jpeg"), "fits": FITS_SUFFIXES}
_FORMATS = ("auto", "any", *_SUFFIXES, "jpeg")
_JPEG_SCAN, _MOST_SCANS = b"\xff\xda", 100  # a progressive JPEG has some ten
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_MODES = {0: "mono", 2: "rgb", 6: "rgba"}  # colour type of the header -> kornia_rs's word for it


class Picture(NamedTuple):
    """An image as models take it.

    Attributes:
        pixels: (size, size, channels) of uint8, row 0 on top; of float16 where FITS files are not stretched.
        bad_pixels: how many pixels of the file, within the square, lacked a band and were filled; only FITS knows.
    """

    pixels: NDArray[Any]
    bad_pixels: int


def read_picture(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int = 3,
    fit: str = "crop",
    fits: FitsConfig | None = None,
) -> Picture:
    """Read a PNG, JPEG or FITS file, told apart by content and not by suffix, as a square image.

    - 16-bit samples become round(sample / 257); transparency is laid on black, the colour of the sky.
    - One channel from colour is luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); three from grey repeat it.
    - A JPEG at least twice as large as ``size`` is decoded at a reduced scale (cosine transform).
    - Colour profiles and the EXIF orientation are ignored: cutouts have none, and a galaxy has no way up.
    - FITS is stretched at its own size, and its first row, the bottom one, comes last. Without a stretch its fluxes are
      kept: one channel from colour is then their mean, and bad pixels are filled as a stretch does.

    Args:
        path: The file, or its URL (``s3://``, ``https://``, …: what fsspec reads); of FITS on disk also a section of
            one, or several, as :func:`zoobot.data.fits_images.read_bands` has it.
        size: Side of the result in pixels, by antialiased resizing; None keeps the side of the squared image.
        channels: 1 or 3 (red, green, blue).
        fit: Makes an image square: "crop" keeps the centre, "pad" adds black edges, to FITS edges of sky.
        fits: Where FITS files have their fluxes, and their stretch.

    Raises:
        ImageError: The file is missing, truncated, of another kind, or has more than ``MAX_PIXELS`` pixels; without a
            stretch, it is not FITS, or has fluxes beyond what float16 can hold.
        SettingError: ``size``, ``channels`` or ``fit`` is outside what it may be.
    """
    _check_settings(size, channels, fit)
    if is_url(path):
        with _fetched(str(path)) as copy:
            return read_picture(copy, size=size, channels=channels, fit=fit, fits=fits)
    encoded = _read_file(path)
    fits = fits or FitsConfig()
    if encoded is not None:
        if fits.stretch is None:
            raise ImageError(f"cannot read image {path}: it is no FITS file, and without a stretch fluxes are wanted")
        return Picture(decode_image(encoded, name=str(path), size=size, channels=channels, fit=fit), 0)
    bands = np.moveaxis(fits_images.read_bands(path, fits.layout), 0, -1)
    try:
        bad_pixels = int(_square(np.asarray(np.isnan(bands).any(axis=2)), fit).sum())
        square = np.moveaxis(_square(bands, fit, fill=np.nan), -1, 0)
        if fits.stretch is None:
            fill_bad(square, np.isnan(square))
            return Picture(_as_float16(_finish(np.moveaxis(square, 0, -1)[::-1], size, channels)), bad_pixels)
        pixels = apply_stretch(square, fits.stretch)[::-1]
    except ValueError as error:  # too large when padded, or too few bands for the stretch
        raise ImageError(f"cannot read image {path}: {error}") from error
    return Picture(_finish(pixels, size, channels), bad_pixels)


def read_image(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int = 3,
    fit: str = "crop",
    fits: FitsConfig | None = None,
) -> NDArray[np.uint8]:
    """Read the pixels of `read_picture`, (size, size, channels) of uint8.

    Raises:
        ImageError: As for ``read_picture``.
        SettingError: As for ``read_picture``.
    """
    return read_picture(path, size=size, channels=channels, fit=fit, fits=fits).pixels


def decode_image(
    encoded: bytes, *, name: str, size: int | None = None, channels: int = 3, fit: str = "crop"
) -> NDArray[np.uint8]:
    """Decode the bytes of a PNG or JPEG as ``read_picture`` does; ``name`` stands for the path in errors.

    Raises:
        ImageError: As for ``read_picture``.
        SettingError: As for ``read_picture``.

    >>> encoded = encode_image(np.full((4, 6, 3), 7, np.uint8), "png")
    >>> decode_image(encoded, name="a galaxy", size=2, channels=1)[..., 0]
    array([[7, 7],
           [7, 7]], dtype=uint8)
    """
    _check_settings(size, channels, fit)
    try:
        pixels = _square(_decode(encoded, size), fit)
    except Exception as error:  # every library raises its own, some the bare Exception
        raise ImageError(f"cannot read image {name}: {give_reason(error)}") from error
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _on_black(pixels)
    return _finish(pixels, size, channels)


def _finish(pixels: NDArray[Any], size: int | None, channels: int) -> NDArray[Any]:
    """Give a square image, of colours or of fluxes, the channels and the size."""
    if channels == 1 and pixels.shape[2:] == (3,):
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.dtype == np.uint8 else pixels.mean(axis=2)
        pixels = np.asarray(grey, pixels.dtype)
    if size is not None:
        pixels = _resize(pixels, size)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] != channels:
        pixels = np.repeat(pixels, channels, axis=2)
    return np.ascontiguousarray(pixels)


def encode_image(pixels: NDArray[np.uint8], encoding: str, *, quality: int = 95) -> bytes:
    """Encode an image: the same pixels give the same bytes.

    Args:
        pixels: (height, width, 1 or 3) of uint8.
        encoding: "png" (lossless) or "jpeg" (with colour at full resolution).
        quality: Of a JPEG, 1 to 100.

    Raises:
        SettingError: An argument is outside what it may be.

    >>> encode_image(np.zeros((2, 2, 1), np.uint8), "png")[1:4]
    b'PNG'
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise SettingError(
            f"pixels: got {pixels.dtype} of shape {pixels.shape}, expected uint8 (height, width, 1 or 3)"
        )
    if not 1 <= quality <= 100:
        raise SettingError(f"quality: got {quality}, expected 1 to 100")
    grey = pixels.shape[2] == 1
    if encoding == "jpeg":
        spaces = {"colorspace": "GRAY", "colorsubsampling": "Gray"} if grey else {"colorsubsampling": "444"}
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, **spaces))
    if encoding == "png":
        # opencv's default is four times as fast as Pillow, for files a few per cent larger
        ordered = pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        return bytes(cv2.imencode(".png", ordered)[1])
    raise SettingError(f"encoding: got {encoding!r}, expected 'png' or 'jpeg'")


def find_images(folder: str | Path, file_format: str = "auto", *, recursive: bool = False) -> list[Path]:
    """List the images of a folder by suffix, in the order of their paths; hidden files are left out.

    Args:
        folder: Where to look.
        file_format: "png"; "jpg" or "jpeg", which both find .jpg and .jpeg; "fits", which finds .fits, .fit, .fits.gz
            and .fits.fz; "any" of these; or "auto", that of them which the folder has. Upper case is found too.
        recursive: Look in the folders inside, too.

    Raises:
        SettingError: ``file_format`` is none of these; or is "auto", and the folder has several.
        ImageError: The folder is missing or cannot be read, or has no such files.
    """
    folder, chosen = Path(folder), file_format.lower()
    if chosen not in _FORMATS:
        raise SettingError(f"file_format: got {file_format!r}, expected one of {', '.join(_FORMATS)}")
    formats = list(_SUFFIXES) if chosen in ("auto", "any") else ["jpg" if chosen == "jpeg" else chosen]
    suffixes = tuple(suffix for each in formats for suffix in _SUFFIXES[each])
    walk = os.walk(folder, onerror=_raise_unreadable)
    files = [
        Path(parent, name)
        for parent, _, names in islice(walk, None if recursive else 1)
        for name in names
        if not name.startswith(".")
    ]
    images = sorted(path for path in files if path.name.lower().endswith(suffixes))
    if not images:
        raise ImageError(_no_images(folder, suffixes, files, recursive))
    if chosen == "auto":
        counts = {each: sum(path.name.lower().endswith(_SUFFIXES[each]) for path in images) for each in formats}
        found = [f"{count} {each}" for each, count in counts.items() if count]
        if len(found) > 1:
            raise SettingError(
                f"folder {folder} has {', '.join(found)}: choose with file_format (--file-format), any takes all"
            )
    return images


def _raise_unreadable(error: OSError) -> NoReturn:
    raise ImageError(f"cannot read folder {error.filename}: {error.strerror}") from error


def _no_images(folder: Path, suffixes: Iterable[str], files: list[Path], recursive: bool) -> str:
    counts = Counter(path.suffix.lower() or "no suffix" for path in files).most_common(5)
    found = ", ".join(f"{count} with {suffix}" for suffix, count in counts) or "no files"
    inside = not recursive and any(path.is_dir() for path in folder.iterdir())
    hint = "; it has folders inside, which are searched with recursive" if inside else ""
    return f"folder {folder}: expected files with {' or '.join(suffixes)}, found {found}{hint}"


@contextlib.contextmanager
def _fetched(url: str) -> Iterator[Path]:
    """A copy on disk; errors of reading it name the URL."""
    try:
        if "file://" in url or "local://" in url:  # which may name a device that never ends
            raise ShardError("it is no URL of another machine; give the path alone")
        if url.endswith("]") or len(split_files(url)) > 1:
            raise ShardError("sections and several files of one galaxy are read from disks only; copy them")
        encoded = read_remote(url)
    except ShardError as error:
        raise ImageError(f"cannot read image {url}: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "image")
        copy.write_bytes(encoded)
        try:
            yield copy
        except ImageError as error:
            raise ImageError(str(error).replace(str(copy), url)) from error


def _read_file(path: str | Path) -> bytes | None:
    """The bytes of a PNG or JPEG; nothing if it is FITS, or the name of a part of one or of several."""
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116
        if not stat.S_ISREG(kind):  # reading a pipe or a device may never end
            raise ImageError(f"cannot read image {path}: it is a folder, a pipe or a device")
        with open(path, "rb") as file:
            start = file.read(16)
            return None if is_fits(start) else start + file.read()
    except FileNotFoundError as error:
        if str(path).endswith("]") or len(split_files(str(path))) > 1:
            return None
        raise ImageError(f"cannot read image {path}: {error.strerror}") from error
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise ImageError(f"cannot read image {path}: {getattr(error, 'strerror', None) or error}") from error


def _check_settings(size: int | None, channels: int, fit: str) -> None:
    if size is not None and not 1 <= size <= MAX_PIXELS**0.5:
        raise SettingError(f"size: got {size}, expected 1 to {MAX_PIXELS**0.5:.0f} pixels, or None")
    if channels not in (1, 3):
        raise SettingError(f"channels: got {channels}, expected 1 or 3")
    if fit not in ("crop", "pad"):
        raise SettingError(f"fit: got {fit!r}, expected 'crop' or 'pad'")


def _decode(encoded: bytes, size: int | None) -> NDArray[np.uint8]:
    """To (height, width) or (height, width, 1, 3 or 4)."""
    if encoded.startswith(_PNG_SIGNATURE):
        return _decode_png(encoded)
    if encoded.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(encoded, size)
    raise ValueError(f"it is neither PNG nor JPEG, it begins with {encoded[:8]!r}" if encoded else "it is empty")


def _decode_png(encoded: bytes) -> NDArray[np.uint8]:
    if len(encoded) < 33:
        raise ValueError("it ends within its header")
    width, height, depth, colour_type = struct.unpack_from(">IIBB", encoded, 16)
    _check_pixels(height, width)
    mode = _PNG_MODES.get(colour_type)
    if mode and depth == 16:
        samples = kornia_rs.io.decode_image_png_u16(encoded, (height, width), mode)
        pixels = np.empty(samples.shape, np.uint8)
        for row, wide in enumerate(samples):  # by rows, as whole it would take six times the memory
            pixels[row] = (wide.astype(np.uint32) * 255 + 32895) >> 16  # is round(wide / 257)
        return pixels
    if mode and depth == 8 and b"tRNS" not in encoded[: encoded.find(b"IDAT")]:  # a colour that is transparent
        return _as_uint8(kornia_rs.io.decode_image_png_u8(encoded, (height, width), mode))
    if b"IEND" not in encoded[-4096:]:  # Pillow may not mind
        raise ValueError("it is truncated")
    return _decode_with_pillow(encoded)


def _decode_jpeg(encoded: bytes, size: int | None) -> NDArray[np.uint8]:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
    _check_pixels(int(height), int(width))
    if encoded.count(_JPEG_SCAN) > _MOST_SCANS:  # each takes as long as the whole image
        raise ValueError(f"it has more than {_MOST_SCANS} scans")
    if colorspace in ("CMYK", "YCCK"):
        simplejpeg.decode_jpeg(encoded, colorspace="CMYK")  # for its errors: Pillow lets damage pass
        return _decode_with_pillow(encoded)
    # Factors under 2 are no faster than decoding all of it.
    reduced = {} if size is None else {"min_height": size, "min_width": size, "min_factor": 2}
    space = "GRAY" if colorspace == "Gray" else "RGB"
    return _as_uint8(simplejpeg.decode_jpeg(encoded, colorspace=space, **reduced))


def _decode_with_pillow(encoded: bytes) -> NDArray[np.uint8]:
    try:
        opened = Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))
    except UnidentifiedImageError as error:  # its message tells of an object in memory
        raise ValueError("its header is damaged") from error
    with opened as image:
        if image.has_transparency_data:
            return np.asarray(image.convert("RGBA"))
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(f"it has {height} x {width} pixels, more than the {MAX_PIXELS} that are allowed")


def _square(pixels: NDArray[_Kind], fit: str, fill: float = 0) -> NDArray[_Kind]:
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = min(height, width) if fit == "crop" else max(height, width)
    top, left = abs(height - side) // 2, abs(width - side) // 2
    if fit == "crop":
        return pixels[top : top + side, left : left + side]
    _check_pixels(side, side)
    padded = np.full((side, side, *pixels.shape[2:]), fill, pixels.dtype)
    padded[top : top + height, left : left + width] = pixels
    return padded


def _on_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = _as_uint8(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB))
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgb
    return ((rgb.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _resize(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """Enlarge bilinearly to the next multiple of ``size``, then average its whole blocks.

    As free of aliasing as opencv's INTER_AREA alone, at half its cost for 424 → 300: whole blocks are fast.
    """
    multiple = -(-pixels.shape[0] // size)
    if pixels.shape[0] != multiple * size:
        pixels = cv2.resize(pixels, (multiple * size,) * 2, interpolation=cv2.INTER_LINEAR)
    if multiple > 1:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return pixels


def _as_float16(fluxes: NDArray[np.float32]) -> NDArray[np.float16]:
    highest = float(np.abs(fluxes).max())
    if highest > float(np.finfo(np.float16).max):
        raise ValueError(
            f"it has fluxes of {highest:.3g}, more than float16 can hold; give its zero point, or a stretch"
        )
    return fluxes.astype(np.float16)


def _as_uint8(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.asarray(pixels, np.uint8)
