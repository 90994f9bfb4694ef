"""FITS images: any extension, 2-D or cubes, compressed or not, one file or one for each band, to fluxes of bands."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from zoobot.data.band_files import split_files, split_section
from zoobot.data.fits_files import QUIET, check_image, find_image, give_reason, open_fits
from zoobot.data.limits import MAX_PIXELS
from zoobot.data.stretch import HIGHEST_FLUX, STRETCHES, Stretch, settings_from_dict
from zoobot.errors import ImageError, SettingError

__all__ = ["FITS_SUFFIXES", "FitsConfig", "FitsLayout", "looks_like_fits", "read_bands"]

FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz")

_MANY_BANDS = 16
_READ_TOGETHER = 3  # compressed bands: astropy takes long to begin, and tiles may go across bands


@dataclass(frozen=True)
class FitsLayout:
    """Where in FITS files the fluxes are.

    Attributes:
        hdu: number or name of the extension, in upper or lower case; the first with an image when left out.
        bands: one band, or those of red, green and blue: numbers of the planes of a cube or of the files, from 0; or
            names, which the header gives (``BANDS = 'grz'`` or ``BAND0 = 'g'``), or the names of the files. All when
            left out: one, or three that go from blue to red, as surveys order them.
        bands_last: the bands are the last axis as numpy has it (``NAXIS1``) and not the first (``NAXIS3``).
        mask_hdu: extension of the same file with a mask, 2-D or as the image; what is not 0 there is bad.
        zero_point: AB magnitude of one unit of flux, or the header's keyword for it; fluxes become nanomaggies (22.5).
            As they are when left out.
        zeros_are_bad: fluxes of floating point that are exactly 0 are bad pixels: surveys fill with 0 what they did not
            see. Not in files compressed to multiples of a step (without dithering), where sky may become 0.

    Raises:
        SettingError: a value is not what it may be.
    """

    hdu: int | str | None = None
    bands: tuple[str, ...] = ()
    bands_last: bool = False
    mask_hdu: int | str | None = None
    zero_point: float | str | None = None
    zeros_are_bad: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        strings = type(self.bands) is tuple and all(isinstance(band, str) and band for band in self.bands)
        if not strings or len(self.bands) not in (0, 1, 3):
            raise SettingError(f"bands: got {self.bands!r}, expected a tuple of one, or of red, green and blue")
        for name in ("hdu", "mask_hdu"):
            value = getattr(self, name)
            if type(value) not in (int, str, type(None)) or value == "" or (isinstance(value, int) and value < 0):
                raise SettingError(f"{name}: got {value!r}, expected the number of an extension, from 0, or its name")
        value = self.zero_point
        if not (value if isinstance(value, str) else value is None or (type(value) is not bool and abs(value) < 100)):
            raise SettingError(f"zero_point: got {value!r}, expected a magnitude or a keyword of headers")
        for name in ("bands_last", "zeros_are_bad"):
            if type(getattr(self, name)) is not bool:
                raise SettingError(f"{name}: got {getattr(self, name)!r}, expected true or false")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "FitsLayout":
        """Make one of what JSON holds.

        Raises:
            SettingError: it holds something else.
        """
        return settings_from_dict(cls, content, "fits: ")


@dataclass(frozen=True)
class FitsConfig:
    """How FITS files become colours: where the fluxes are, and their stretch.

    Attributes:
        layout: where in the files.
        stretch: from fluxes to colours; None keeps the fluxes, as float16, for those who train on these.

    Raises:
        SettingError: the stretch is of three bands, and one is chosen.
    """

    layout: FitsLayout = FitsLayout()
    stretch: Stretch | None = STRETCHES["percentile"]

    def __post_init__(self) -> None:
        """Check that they fit together."""
        if len(self.layout.bands) == 1 and self.stretch and len(self.stretch.scales) == 3:
            raise SettingError(
                f"stretch: has scales for 3 bands, and bands (--bands) is {self.layout.bands[0]} alone; give "
                "one scale, such as decals:scales=0.014"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain types, as JSON gives them back."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "FitsConfig":
        """Rebuild one from :meth:`to_dict`.

        Raises:
            SettingError: it holds something else.
        """
        try:
            if not isinstance(content, Mapping) or set(content) != {"layout", "stretch"}:
                raise SettingError(f"fits: got {content!r}, expected a layout and a stretch")
            layout, stretch = FitsLayout.from_dict(content["layout"]), content["stretch"]
            return cls(layout, None if stretch is None else Stretch.from_dict(stretch))
        except SettingError as error:  # which quotes what it got, and that may be millions of numbers
            raise SettingError(give_reason(error)) from None


def looks_like_fits(file_loc: str) -> bool:
    """Say by its name alone whether a file is FITS, or a section of one, or files of single bands.

    >>> [looks_like_fits(name) for name in ("a.fits.fz", "a.fits[1:9,1:9]", "a-{g,r}.fits", "a.png")]
    [True, True, True, False]
    """
    return split_section(file_loc)[0].lower().endswith(FITS_SUFFIXES)


def read_bands(file_loc: str | Path, layout: FitsLayout | None = None) -> NDArray[np.float32]:
    """Read the fluxes of one or three bands; those of three are in the order red, green, blue.

    Integers are scaled by BSCALE and BZERO. Gzipped files and tile-compressed ones (``.fits.fz``) are unpacked, but not
    those of HCOMPRESS and PLIO, which crash the process where they are damaged. The name may end with a section as
    CFITSIO has it, ``mosaic.fits[11:60,1:50]``: columns, then rows, from 1 and inclusive, of which nothing else is
    read; what lies beyond the edges is bad. It may name single-band files with braces, as ``12-{g,r,z}.fits``.

    Args:
        file_loc: the file or files.
        layout: where the fluxes are in it.

    Returns:
        (1 or 3, height, width) float32, row 0 at the bottom as in FITS; NaN where the file, its mask or its BLANK says
        that a pixel is bad, and for infinities and what is beyond ``HIGHEST_FLUX``.

    Raises:
        ImageError: a file is missing, truncated, no FITS, too large, has no such extension or bands, or not one good
            pixel; or files of one galaxy differ in shape.
    """
    layout = layout or FitsLayout()
    text = str(file_loc)
    try:
        name, section = (text, "") if Path(text).exists() else split_section(text)
        window = _parse_window(section) if section else None
        files = [name] if Path(name).exists() else split_files(name)
        with QUIET, np.errstate(all="ignore"):
            bands = _read_files(files, layout, window) if len(files) > 1 else _read_cube(name, layout, window)
    except Exception as error:  # of hostile files astropy raises of everything
        raise ImageError(f"cannot read image {text}: {give_reason(error)}") from error
    if np.isnan(bands).all():
        raise ImageError(f"cannot read image {text}: it has no good pixel in the bands that are used")
    return bands


class _Window:
    """A part of an image: rows and columns from 0, the ends exclusive; it may reach beyond the image."""

    def __init__(self, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        self.ranges = (rows, columns)
        self.shape = (rows[1] - rows[0], columns[1] - columns[0])
        if min(self.shape) < 1:
            raise ValueError(f"its section is of {self.shape[1]} x {self.shape[0]} pixels")
        if math.prod(self.shape) > MAX_PIXELS:
            raise ValueError(f"it has {self.shape[0]} x {self.shape[1]} pixels, more than the {MAX_PIXELS} allowed")

    def clip(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where its pixels are in the image, and where these go in the window."""
        source, target = [], []
        for (start, stop), size in zip(self.ranges, shape, strict=True):
            first, last = min(max(start, 0), size), min(max(stop, 0), size)
            source.append(slice(first, max(first, last)))
            target.append(slice(first - start, max(first, last) - start))
        return (source[0], source[1]), (target[0], target[1])


def _parse_window(section: str) -> _Window:
    (left, right), (bottom, top) = (map(int, part.split(":")) for part in section.strip("[]").split(","))
    return _Window((bottom - 1, top), (left - 1, right))


def _read_files(files: Sequence[str], layout: FitsLayout, window: _Window | None) -> NDArray[np.float32]:
    """One band from each of some of the files."""
    names = _short_names(files)
    if len(files) == len(layout.bands) and not set(layout.bands) & {*names, *map(str, range(len(files)))}:
        chosen = list(range(len(files)))  # columns of a catalog, which gave them in the order of the bands
    else:
        chosen = _choose(layout.bands, len(files), names)
    single = replace(layout, bands=())
    bands = []
    for number in chosen:
        try:
            bands.append(_read_cube(files[number], single, window))
        except Exception as error:
            raise ValueError(f"{Path(files[number]).name}: {give_reason(error)}") from error
    if any(len(band) != 1 for band in bands):
        raise ValueError("each file of several must hold one band")
    if len({band.shape for band in bands}) > 1:
        sizes = ", ".join(f"{band.shape[2]} x {band.shape[1]}" for band in bands)
        raise ValueError(f"its bands differ in size: {sizes} pixels")
    return np.concatenate(bands)


def _short_names(files: Sequence[str]) -> list[str]:
    """What differs between the names, as it stands between the braces."""
    start = 0
    shortest = min(map(len, files))
    while start < shortest and len({file[start] for file in files}) == 1:
        start += 1
    end = 0
    while end < shortest - start and len({file[-1 - end] for file in files}) == 1:
        end += 1
    return [file[start : len(file) - end] for file in files]


def _read_cube(file: str, layout: FitsLayout, window: _Window | None) -> NDArray[np.float32]:
    """Bands of one file, 2-D or a cube."""
    with open_fits(file) as hdus:
        image = _Image(file, hdus, layout.hdu, layout)
        mask = None if layout.mask_hdu is None else _Image(file, hdus, layout.mask_hdu, layout)
        if mask and (mask.shape != image.shape or mask.count not in (1, image.count)):
            raise ValueError(f"its mask is of {mask}, its image of {image}")
        planes = _choose(layout.bands, image.count, _band_names(hdus[0].header, image.header, image.count))
        window = window or _Window((0, image.shape[0]), (0, image.shape[1]))
        source, target = window.clip(image.shape)
        bands = np.full((len(planes), *window.shape), np.nan, np.float32)
        zero_point = _find_zero_point(layout.zero_point, image.header, hdus[0].header)
        for band, plane in zip(bands, planes, strict=True):
            values = image.read(plane, source).astype(np.float32)
            if zero_point is not None:
                values *= np.float32(10 ** (0.4 * (22.5 - zero_point)))
            bad = ~(np.abs(values) < HIGHEST_FLUX)  # NaN is not less
            if layout.zeros_are_bad and image.zeros_are_told:
                bad |= values == 0
            if mask:
                bad |= mask.read(plane if mask.count > 1 else 0, source) != 0
            values[bad] = np.nan
            band[target] = values
    return bands


class _Image:
    """An extension with an image of one band or more, of which parts are read."""

    def __init__(self, file: str, hdus: Any, wanted: int | str | None, layout: FitsLayout) -> None:
        number, hdu = find_image(hdus, wanted)
        self._hdu = hdu
        self.header = hdu.header.copy()  # astropy changes it when it has read data
        shape = tuple(hdu.shape)
        self._cube: NDArray[Any] | None = None
        self._outer = 0  # axes of length 1 before those of the image, as radio telescopes have them
        while len(shape) > 3 and shape[0] == 1:
            self._outer, shape = self._outer + 1, shape[1:]
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"its image has the axes {shape}, expected two, or three with the bands")
        if len(shape) == 2:
            self.count, self._axis = 1, None
        else:
            self._axis = -1 if layout.bands_last else 0
            self.count = shape[self._axis]
            shape = shape[:-1] if layout.bands_last else shape[1:]
        self.shape = (int(shape[0]), int(shape[1]))
        self.zeros_are_told = check_image(file, number, hdu) and hdu.header["BITPIX"] < 0

    def __str__(self) -> str:
        """Its size in words."""
        return f"{self.shape[1]} x {self.shape[0]} pixels and {self.count} bands"

    def read(self, plane: int, part: tuple[slice, slice]) -> NDArray[Any]:
        """Fluxes of one band, scaled, in rows and columns."""
        if part[0].start >= part[0].stop or part[1].start >= part[1].stop:
            return np.empty((part[0].stop - part[0].start, part[1].stop - part[1].start))
        if self._axis is None:
            return self._read_section(part)
        if self.count > _READ_TOGETHER or not isinstance(self._hdu, fits.CompImageHDU):
            return self._read_section((*part, plane) if self._axis == -1 else (plane, *part))
        if self._cube is None:
            every = slice(0, self.count)
            self._cube = self._read_section((*part, every) if self._axis == -1 else (every, *part))
        return np.asarray(self._cube.take(plane, axis=self._axis))

    def _read_section(self, index: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self._hdu.section[(*[0] * self._outer, *index)])


def _band_names(primary: fits.Header, header: fits.Header, count: int) -> list[str]:
    """Names of the planes of a cube, if a header gives them."""
    for each in (header, primary):
        together = str(each.get("BANDS", "")).strip()
        for names in (list(together), re.split(r"[,\s]+", together) if together else []):
            if len(names) == count:
                return names
        found: list[str] = []
        while len(found) < count and (name := str(each.get(f"BAND{len(found)}", ""))):  # a header may tell of 10^18
            found.append(name)
        if len(found) == count:
            return found
    return []


def _choose(bands: Sequence[str], count: int, names: Sequence[str]) -> list[int]:
    """Numbers of the planes, or the files, of these bands."""
    if not bands:
        if count not in (1, 3):
            example = ",".join(names[-1:0:-1][:3]) if len(names) > 3 else "2,1,0"
            hint = "; or are they the other axis (--bands-last)?" if count > _MANY_BANDS else ""
            raise ValueError(f"it has {count} bands; say which are red, green and blue (--bands {example}){hint}")
        return [0] if count == 1 else [2, 1, 0]
    chosen = []
    for band in bands:
        if band in names:
            chosen.append(names.index(band))
        elif band.isdecimal() and int(band) < count:
            chosen.append(int(band))
        elif len(bands) == count == 1 and not names and not band.isdecimal():
            chosen.append(0)  # of a catalog with a column for this band; the file does not tell which one it holds
        else:
            known = f"{', '.join(names)}, or " if names else ""
            hint = "" if count > 1 else "; name files of single bands together (file_loc_g, …, or a-{g,r,z}.fits)"
            hint += "; are they the other axis (--bands-last)?" if count > _MANY_BANDS else ""
            raise ValueError(f"it has no band {band!r}; it has {known}0 to {count - 1}{hint}")
    return chosen


def _find_zero_point(wanted: float | str | None, *headers: fits.Header) -> float | None:
    if not isinstance(wanted, str):
        return wanted
    for header in headers:
        value = header.get(wanted)
        if isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 100:
            return float(value)
    raise ValueError(f"its header has no zero point {wanted}")
