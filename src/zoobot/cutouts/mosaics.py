"""Mosaics: large FITS images with a WCS, of which windows are read where they are asked for."""

import functools
import glob
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from zoobot.data.fits_files import QUIET, check_image, find_image, give_reason, open_fits
from zoobot.errors import ImageError

__all__ = ["Mosaic", "find_mosaics", "open_mosaic"]

Floats = NDArray[np.float64]

_STRIP_ROWS, _STRIP_MEMORY = 64, 2**26  # bytes
_SUFFIXES = (".fits", ".fit", ".fz")
_WCS_CARD = re.compile(
    r"(WCSAXES|WCSNAME|(CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA|CRDER|CSYER|CNAME|LTV)\d+|(CD|PC|PV|PS|LTM)\d+_\d+|"
    r"(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|LONPOLE|LATPOLE|RADE(SYS|CSYS)|EQUINOX|MJDREF[IF]?)[A-Z]?"
)
_OTHER_CARDS = {"BLANK", "BSCALE", "BZERO", "CHECKSUM", "COMMENT", "DATASUM", "EXTNAME", "EXTVER", "HISTORY", ""}


def find_mosaics(mosaics: str | Path | Sequence[str | Path]) -> list[Path]:
    """List the files that are named, lie in folders that are named, or fit patterns; each once, absolute.

    Raises:
        ImageError: there are none.
    """
    given = [mosaics] if isinstance(mosaics, str | Path) else list(mosaics)
    found: dict[Path, None] = {}  # in their order, each once
    for each in map(Path, given):
        if each.is_dir():
            paths = [path for path in sorted(each.iterdir()) if path.name.lower().endswith(_SUFFIXES)]
        elif each.exists():
            paths = [each]
        else:
            paths = [Path(path) for path in sorted(glob.glob(str(each), recursive=True))]  # noqa: PTH207  # absolute too
        if not paths:
            raise ImageError(
                f"mosaics (--mosaic): {each} is no file, folder with {', '.join(_SUFFIXES)}, or pattern of some"
            )
        found |= dict.fromkeys(path.absolute() for path in paths)
    if not found:
        raise ImageError("mosaics (--mosaic): got none, expected at least one FITS file")
    return list(found)


class Mosaic:
    """An open mosaic: its WCS, and pixels that are read where they are asked for.

    Attributes:
        path: of the file.
        header: of the image, and what else the primary header says.
        shape: rows and columns.
        planes: how many there are of them.
        wcs: of the first two axes.
        zeros_are_told: whether a flux of exactly 0 says that a pixel was not seen.
    """

    def __init__(self, path: Path, hdus: Any, hdu: int | str | None) -> None:
        self.path = path
        number, self._image = find_image(hdus, hdu)
        zeros_are_exact = check_image(str(path), number, self._image)
        self.zeros_are_told = zeros_are_exact and self._image.header["BITPIX"] < 0
        self.header: fits.Header = self._image.header.copy()
        self.header.extend(hdus[0].header, strip=True, unique=True)  # bands and zero points may stand there
        self.shape: tuple[int, int] = self._image.shape[-2:]
        self.planes = math.prod(self._image.shape[:-2])
        self.wcs = WCS(self._image.header, hdus, naxis=2)
        if not self.wcs.has_celestial:
            what = (
                f"is of {' and '.join(filter(None, self.wcs.wcs.ctype))}" if any(self.wcs.wcs.ctype) else "is missing"
            )
            raise ValueError(f"its WCS {what}; expected axes 1 and 2 to be on the sky, as RA---TAN and DEC--TAN")

    @functools.cached_property
    def _pixels(self) -> Any:
        """Sliced, it gives scaled pixels; a memory map is far faster than a section, which scales and unpacks."""
        image, header = self._image, self._image.header
        if isinstance(image, fits.CompImageHDU):
            return _Strips(image) if image.tile_shape[-1] == image.shape[-1] else image.section
        as_stored = header["BITPIX"] < 0 and header.get("BSCALE", 1) == 1 and header.get("BZERO", 0) == 0
        return image.data if as_stored else image.section

    @functools.cached_property
    def _other_cards(self) -> fits.Header:
        """What the header says, save of the WCS and of how the pixels are stored."""
        kept = [
            card
            for card in self.header.cards
            if card.keyword not in _OTHER_CARDS and not _WCS_CARD.fullmatch(card.keyword)
        ]
        return fits.Header(kept).copy(strip=True)

    @functools.cached_property
    def own_header(self) -> fits.Header:
        """The header of cutouts that lie as the mosaic does, save for CRPIX.

        Raises:
            ImageError: they could not keep the distortions of the WCS.
        """
        if any((self.wcs.cpdis1, self.wcs.cpdis2, self.wcs.det2im1, self.wcs.det2im2)):
            raise ImageError(
                f"{self.path}: its WCS has tables of distortion, which cutouts cannot keep; use align north"
            )
        return self.make_header(self.wcs)

    def make_header(self, wcs: WCS) -> fits.Header:
        """Join a WCS and what the mosaic's header says of other things."""
        header: fits.Header = wcs.to_header(relax=True)
        if self.planes > 1:
            header.remove("WCSAXES", ignore_missing=True)  # it would tell of fewer axes than there are
        header.extend(self._other_cards)
        return header

    @property
    def band(self) -> str:
        """The filter that the header tells of, or nothing."""
        return str(self.header.get("FILTER", "")).strip()

    @property
    def is_by_area(self) -> bool:
        """Whether pixels are fluxes by solid angle, which resampling does not change."""
        return re.search("sr|arcsec", str(self.header.get("BUNIT", ""))) is not None

    def to_pixels(self, sky: Floats) -> Floats:
        """Columns and rows from 0, (2, …), of unit vectors (…, 3); NaN or nonsense where the mosaic cannot be."""
        ra, dec = np.arctan2(sky[..., 1], sky[..., 0]), np.arctan2(sky[..., 2], np.hypot(sky[..., 0], sky[..., 1]))
        return np.asarray(self.wcs.world_to_pixel(SkyCoord(ra, dec, unit="rad")), np.float64)

    def to_sky(self, x: Floats, y: Floats) -> Floats:
        """Unit vectors (…, 3), ICRS."""
        vectors = self.wcs.pixel_to_world(x, y).icrs.cartesian.xyz.value
        return np.moveaxis(np.asarray(vectors, np.float64), 0, -1)

    def read(self, left: int, bottom: int, width: int, height: int) -> NDArray[np.float32]:
        """(planes, height, width), NaN beyond the edges."""
        window = np.full((self.planes, height, width), np.nan, np.float32)
        source, target = _clip(bottom, height, self.shape[0]), _clip(left, width, self.shape[1])
        if source[0].start < source[0].stop and target[0].start < target[0].stop:
            try:
                with np.errstate(over="ignore"):
                    values = np.asarray(self._pixels[..., source[0], target[0]], np.float32)
            except Exception as error:  # the decompressors' errors share no other base class
                raise ImageError(f"cannot read mosaic {self.path}: {error or type(error).__name__}") from error
            window[:, source[1], target[1]] = values.reshape(self.planes, *values.shape[-2:])
        return window

    def covers(self, left: int, bottom: int, width: int, height: int) -> NDArray[np.bool_]:
        """(height, width): which pixels of a window lie on the mosaic."""
        inside = np.zeros((height, width), np.bool_)
        inside[_clip(bottom, height, self.shape[0])[1], _clip(left, width, self.shape[1])[1]] = True
        return inside


class _Strips:
    """An image that is compressed row by row, of which unpacked rows are kept, as neighbours need the same."""

    def __init__(self, image: Any) -> None:
        self._image = image
        size = 4 * math.prod(image.shape) // image.shape[-2] * _STRIP_ROWS
        self._unpack = functools.lru_cache(maxsize=max(2, _STRIP_MEMORY // size))(self._read_strip)

    def _read_strip(self, number: int) -> NDArray[np.float32]:
        stop = min((number + 1) * _STRIP_ROWS, self._image.shape[-2])
        return np.asarray(self._image.section[..., number * _STRIP_ROWS : stop, :], np.float32)

    def __getitem__(self, index: tuple[Any, slice, slice]) -> NDArray[np.float32]:
        _, rows, columns = index
        numbers = range(rows.start // _STRIP_ROWS, (rows.stop - 1) // _STRIP_ROWS + 1)
        strips = np.concatenate([self._unpack(number)[..., columns] for number in numbers], axis=-2)
        return strips[..., rows.start - numbers[0] * _STRIP_ROWS :, :][..., : rows.stop - rows.start, :]


def _clip(start: int, length: int, available: int) -> tuple[slice, slice]:
    """Which of the available pixels a window has, and where in the window they are."""
    first = min(max(start, 0), available)
    last = max(first, min(start + length, available))
    return slice(first, last), slice(first - start, last - start)


@contextmanager
def open_mosaic(path: Path, hdu: int | str | None) -> Iterator[Mosaic]:
    """Open the extension of that number or name, or the first with an image.

    Raises:
        ImageError: it is missing, truncated, no FITS, compressed as a whole, or has no image or no WCS of the sky.
    """
    with QUIET, ExitStack() as stack:
        try:
            _check_start(path)
            # uint: or sections of unsigned integers would come without their BLANK
            hdus = stack.enter_context(open_fits(str(path), memmap=None, uint=False))
            mosaic = Mosaic(path, hdus, hdu)
        except Exception as error:  # of hostile headers astropy raises of everything
            raise ImageError(f"cannot read mosaic {path}: {give_reason(error)}") from error
        yield mosaic


def _check_start(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError("it is compressed as a whole; unpack it with gunzip, or compress it by tiles with fpack")
