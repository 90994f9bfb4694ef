"""FITS files of strangers, opened with astropy: what would crash it, hang it or fill the memory is refused first."""

import gzip
import io
import math
import os
import re
import stat
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from astropy.io import fits

from zoobot.data.limits import MAX_PIXELS

__all__ = ["QUIET", "check_image", "find_image", "give_reason", "is_fits", "open_fits"]

_SIGNATURE = b"SIMPLE  ="
_GZIP = b"\x1f\x8b"
_MOST_HDUS = 1000
_LONGEST_REASON = 500  # characters: headers of damaged files are quoted
_SAFE_PACKINGS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "NOCOMPRESS")
_BLOCK = 2880  # bytes
_END = b"END".ljust(80)
_LONGEST_HEADER = 4000  # blocks
_COUNTS = re.compile(rb"(?:HIERARCH +)?(Z?NAXIS|TFIELDS) *= *\+?(\d+)", re.IGNORECASE)
_MOST_COUNTED = 999  # axes or columns, as the standard has it
_MOST_UNPACKED = 2**28  # bytes
_SAFE_PACKED = _MOST_UNPACKED // 1032  # gzip makes at most that much less of anything


def is_fits(start: bytes) -> bool:
    """Say whether a file that starts with these bytes is FITS, or gzipped, as of images only FITS is.

    >>> is_fits(b"SIMPLE  =                    T"), is_fits(b"GIF89a")
    (True, False)
    """
    return start.startswith((_SIGNATURE, _GZIP))


class _Quiet:
    """Ignores warnings while any thread reads: what astropy warns of is either harmless or found out here.

    ``catch_warnings`` of several threads, left in another order than entered, would ignore them for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0

    def __enter__(self) -> None:
        """Begin to read."""
        with self._lock:
            if not self._readers:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        """The last one to end restores."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._caught.__exit__(None, None, None)


QUIET = _Quiet()
"""Entered while astropy reads."""


class _Extensions(fits.HDUList):  # type: ignore[misc]  # astropy has no types
    """Extensions of a file, none of which is read before its header is checked."""

    def update_extend(self) -> None:
        """Do not look ahead for whether EXTEND is right."""


@contextmanager
def open_fits(file: str, *, memmap: bool | None = False, **options: bool) -> Iterator[Any]:
    """Open a file: the extensions, which are read as far as they are used.

    Args:
        file: FITS, or such a file gzipped, which is unpacked in memory.
        memmap: map the file into memory; None to do so where it is possible, which is not for scaled data.
        options: further ones of ``astropy.io.fits.open``.

    Raises:
        ValueError: it is no FITS file, or one that is not safe to open.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116  # reading a pipe or a device may never end
        raise ValueError("it is a folder, a pipe or a device")
    with open(file, "rb") as raw:
        start = raw.read(len(_SIGNATURE))
        if start == _SIGNATURE:
            _check_header(raw, 0)
    if start.startswith(_GZIP):
        with gzip.open(file) as packed:
            content = packed.read(_MOST_UNPACKED + 1)
        if len(content) > _MOST_UNPACKED:
            raise ValueError(
                f"it unpacks to more than {_MOST_UNPACKED >> 20} MiB; unpack it, or compress it as .fits.fz"
            )
        _check_signature(content[: len(_SIGNATURE)])
        _check_header(io.BytesIO(content), 0)
        with _Extensions.fromfile(io.BytesIO(content), mode="readonly", memmap=False, **options) as hdus:
            yield hdus
    else:
        _check_signature(start)
        with _Extensions.fromfile(file, mode="readonly", memmap=memmap, **options) as hdus:
            yield hdus


def _check_signature(start: bytes) -> None:
    if start != _SIGNATURE:  # astropy would open what is packed twice, or a zip
        raise ValueError(f"it is no FITS file, it begins with {start!r}" if start else "it is empty")


def _check_header(file: Any, start: int) -> None:
    """Refuse numbers up to which astropy would count, and headers without an end, as both would take it for ever."""
    file.seek(start)
    for _ in range(_LONGEST_HEADER):
        block = file.read(_BLOCK)
        cards = [block[place : place + 80] for place in range(0, len(block), 80)]
        for found in filter(None, map(_COUNTS.match, cards)):
            if int(found[2]) > _MOST_COUNTED:
                keyword, count = found[1].decode(), found[2].decode()
                raise ValueError(f"its {keyword} is {count}, more than the {_MOST_COUNTED} that FITS allows")
        if len(block) < _BLOCK or _END in cards:
            return
    raise ValueError(f"its header has more than {_LONGEST_HEADER * _BLOCK >> 20} MiB")


def check_image(file: str, number: int, hdu: Any) -> bool:
    """Compare what the header of an image says with the file, before any memory is taken for it.

    Args:
        file: of which the image is.
        number: of its extension.
        hdu: the extension.

    Returns:
        Whether a flux of 0 was 0 before it was compressed: not if floating point was rounded to multiples of a step.

    Raises:
        ValueError: it is truncated, or its tiles are packed in a way that is not safe.
    """
    if isinstance(hdu, fits.CompImageHDU):
        with open_fits(file, disable_image_compression=True) as tables:
            table = tables[number]
            _check_tiles(table, math.prod(hdu.tile_shape))
            return "ZSCALE" not in table.columns.names or "DITHER" in str(table.header.get("ZQUANTIZ", "")).replace(
                "NO_DITHER", ""
            )
    _check_size(hdu)
    return True


def _check_size(hdu: Any) -> None:
    """Compare what the header says with the file, before any memory is taken for it."""
    where = hdu.fileinfo()
    end, there = where["datLoc"] + hdu.size, where["file"].size
    if end > there:
        raise ValueError(f"it is truncated: its header tells of {end} bytes, it has {there}")


def _check_tiles(table: Any, pixels: int) -> None:
    """Refuse what astropy trusts: settings that crash it, and gzipped tiles that fill the memory."""
    _check_size(table)
    if not 1 <= pixels <= MAX_PIXELS:
        raise ValueError(f"its tiles have {pixels} pixels, expected 1 to {MAX_PIXELS}")
    packing = str(table.header.get("ZCMPTYPE"))
    if packing not in _SAFE_PACKINGS:  # astropy's C code for the others writes and reads beyond its memory
        raise ValueError(f"its tiles are packed as {packing}, expected RICE_1, GZIP_1 or GZIP_2; unpack it (funpack)")
    for keyword, name in table.header["ZNAME*"].items():
        size = table.header.get(keyword.replace("ZNAME", "ZVAL"))
        if str(name).upper() == "BYTEPIX" and size not in (1, 2, 4, 8):
            raise ValueError(f"its tiles are packed with BYTEPIX {size}, expected 1, 2, 4 or 8")
    places = table.data.view(np.ndarray)  # length and start of each tile
    gzipped = ["COMPRESSED_DATA"] if packing.startswith("GZIP") else []
    for column in {*gzipped, "GZIP_COMPRESSED_DATA"} & set(places.dtype.names):
        for row in np.flatnonzero(places[column][:, 0] > _SAFE_PACKED):
            unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            unpacked = unpacker.decompress(table.data[column][row].tobytes(), 8 * pixels + 1)
            if len(unpacked) > 8 * pixels or unpacker.unused_data:
                raise ValueError(f"its tile {row} unpacks to more than its {pixels} pixels")


def find_image(hdus: Any, wanted: int | str | None) -> tuple[int, Any]:
    """Find the extension of that number or name, or the first with an image; give its number, too.

    Raises:
        ValueError: there is none, or it holds no image.
    """
    if isinstance(wanted, str):
        wanted = wanted.upper()  # as astropy has all names
    names = []
    for number in range(_MOST_HDUS):
        if number:
            before = hdus[number - 1].fileinfo()
            _check_header(before["file"], before["datLoc"] + before["datSpan"])
        try:
            hdu = hdus[number]
        except IndexError:
            break
        names.append(f"{number} {hdu.name}".rstrip())
        image = hdu.is_image and len(hdu.shape) >= 2
        if image if wanted is None else wanted in (number, hdu.name):
            if not image:
                raise ValueError(f"its extension {wanted} holds no image")
            return number, hdu
    what = "an image" if wanted is None else f"the extension {wanted}"
    raise ValueError(f"it has no extension with an image ({what} was looked for); it has {', '.join(names)}")


def give_reason(error: Exception) -> str:
    """Say why a file cannot be read, however much of it an error quotes."""
    reason = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
