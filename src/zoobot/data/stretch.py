"""The stretch: how measured fluxes become the uint8 colours that people and models look at.

Defined once, by a :class:`Stretch`, that shards and model folders keep, so that prediction does as training did.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zoobot.errors import SettingError

__all__ = [
    "HIGHEST_FLUX",
    "STRETCHES",
    "Stretch",
    "apply_stretch",
    "describe_stretch",
    "fill_bad",
    "parse_stretch",
    "settings_from_dict",
]

_Settings = TypeVar("_Settings")
Fluxes = NDArray[np.float32]

_CURVES: dict[str, Callable[[Any], Any]] = {
    "asinh": np.arcsinh,
    "linear": lambda x: x,
    "sqrt": lambda x: np.sign(x) * np.sqrt(np.abs(x)),
}

HIGHEST_FLUX = 1e30
"""Beyond it is no flux but what some programs write for bad pixels, such as 1.6e38; so sums stay finite, too."""

_LARGEST_SETTING = 1e20  # and one over it the smallest that divides
_BLOCK = 2**15  # pixels at a time, so that all steps find theirs in the processor's cache
_SKY = 25  # percentile of an image that is taken for its sky, where nothing else tells


@dataclass(frozen=True)
class Stretch:
    """How fluxes become colours.

    With b the flux of a band divided by its scale, or, with ``percentiles``, (b − low) / (high − low), where low and
    high are these percentiles of the mean of all bands in this very image; with I the mean over the bands, and
    f(x) = curve(x / softening):

    - v = f(b), each band by itself, which makes bright galaxies greyer; or, with ``keep_colour``, v = b f(I) / I, so
      that the bands keep their ratios however bright a pixel is (Lupton et al. 2004, PASP 116, 133);
    - colour is taken off what is not brighter than the noise: v = m + (v − m) J / (J + faint), with m the mean of v
      over the bands and J = max(I, 0); not if faint is 0;
    - the result is 255 (v − f(lower)) / (f(upper) − f(lower)), rounded, and clipped to 0 to 255.

    So ``lower`` becomes black and ``upper`` white, and the sky, at 0, −255 f(lower) / (f(upper) − f(lower)): 18 for
    "decals". Where a band is bad, it becomes the mean of the good ones, which shows the galaxy in grey; where all are
    bad, sky (with ``percentiles`` their 25th). An image of one value everywhere stays that.

    Attributes:
        scales: what the bands are divided by, in the order red, green, blue; one number for all; flux units.
        lower: black, in units of the scales; of the range with ``percentiles``.
        upper: white, likewise.
        percentiles: two, from 0 to 100, to take the range from each image; less comparable between images.
        curve: "asinh", "linear" or "sqrt".
        softening: where asinh turns from linear to logarithmic, in the units of ``lower``.
        keep_colour: stretch the mean of the bands, and leave their ratios as they are.
        faint: mean of the bands at which half of the colour is kept, such as their noise; 0 keeps all of it.

    Raises:
        SettingError: all the faults at once.
    """

    scales: tuple[float, ...] = (1.0,)
    lower: float = 0.0
    upper: float = 1.0
    percentiles: tuple[float, float] | None = None
    curve: str = "asinh"
    softening: float = 0.1
    keep_colour: bool = True
    faint: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        numbers = [*self.scales, self.lower, self.upper, self.softening, self.faint, *(self.percentiles or ())]
        faults = []
        if not all(type(number) in (int, float) and abs(number) <= _LARGEST_SETTING for number in numbers):
            faults.append(f"expected numbers up to {_LARGEST_SETTING:.0e}, got {self}")
        elif len(self.scales) not in (1, 3) or min(self.scales) * _LARGEST_SETTING < 1:
            faults.append(f"scales: got {self.scales}, expected one or three numbers above 0")
        elif self.softening * _LARGEST_SETTING < 1 or self.faint < 0:
            faults.append(f"softening, faint: got {self.softening} and {self.faint}, expected above 0 and at least 0")
        elif self.percentiles is not None and not _is_range(self.percentiles):
            faults.append(f"percentiles: got {self.percentiles}, expected two from 0 to 100, the lower first")
        elif self.curve in _CURVES and not operator.lt(*self._edges()):
            faults.append(f"lower, upper: got {self.lower} and {self.upper}, expected the lower one first, and a gap")
        if self.curve not in _CURVES:
            faults.append(f"curve: got {self.curve!r}, expected one of {', '.join(_CURVES)}")
        if type(self.keep_colour) is not bool:
            faults.append(f"keep_colour: got {self.keep_colour!r}, expected true or false")
        if faults:
            raise SettingError(f"stretch: {'; '.join(faults)}")

    def _edges(self) -> tuple[float, float]:
        """The curve at black and at white."""
        curve = _CURVES[self.curve]
        return float(curve(self.lower / self.softening)), float(curve(self.upper / self.softening))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Stretch":
        """Make one of what JSON holds.

        Raises:
            SettingError: it holds something else.
        """
        return settings_from_dict(cls, content, "stretch: ")


def settings_from_dict(kind: type[_Settings], content: Mapping[str, Any], told: str) -> _Settings:
    """Make settings, a dataclass, of what JSON holds, which has lists for tuples; errors begin with what is ``told``.

    Raises:
        SettingError: it holds something else.
    """
    try:
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
        return kind(**values)
    except (TypeError, AttributeError) as error:  # the latter where it is no mapping
        raise SettingError(f"{told}got {content!r}, expected the settings of a {kind.__name__} ({error})") from error


def _is_range(percentiles: tuple[float, ...]) -> bool:
    return len(percentiles) == 2 and 0 <= percentiles[0] < percentiles[1] <= 100


STRETCHES = {
    "decals": Stretch((0.019, 0.014, 0.008), -0.5, 300.0, softening=1.0, keep_colour=False, faint=0.3),
    "lupton": Stretch(upper=475.16, softening=0.625),
    "percentile": Stretch(percentiles=(1.0, 99.9), softening=0.03, keep_colour=False, faint=0.03),
}
"""Stretches by name.

- ``decals``: bands z, r, g in nanomaggies per pixel of 0.26 arcsec, as in the images of the DESI Legacy Surveys that
  Galaxy Zoo DECaLS showed to its volunteers.
- ``lupton``: the defaults (Q = 8, stretch = 5) of :func:`astropy.visualization.make_lupton_rgb`.
- ``percentile``: the range of each image, whatever its units.
"""


def parse_stretch(text: str) -> Stretch:
    """Make a stretch of its name and changes to it.

    Raises:
        SettingError: no such name or setting, or a value is not what it may be.

    >>> parse_stretch("decals:upper=200,scales=0.02/0.015/0.01").scales
    (0.02, 0.015, 0.01)
    >>> parse_stretch("percentile") == STRETCHES["percentile"]
    True
    """
    name, _, changes = text.partition(":")
    known = {field.name: field.default for field in dataclasses.fields(Stretch)}
    if name not in STRETCHES:
        raise SettingError(f"stretch: got {name!r}, expected one of {', '.join(STRETCHES)}")
    values: dict[str, Any] = {}
    for change in filter(None, changes.split(",")):
        setting, separator, value = change.partition("=")
        if setting not in known or not separator:
            raise SettingError(
                f"stretch: got {change!r}, expected setting=value with one of {', '.join(known)}, "
                "such as decals:upper=200,faint=0"
            )
        values[setting] = _parse(setting, value, known[setting])
    return dataclasses.replace(STRETCHES[name], **values)


def describe_stretch(stretch: Stretch) -> str:
    """The text of which `parse_stretch` makes it: its name, or the nearest one's with the changes.

    >>> describe_stretch(parse_stretch("decals:upper=200.0"))
    'decals:upper=200.0'
    """

    def differences(name: str) -> list[str]:
        settings = vars(stretch).items()
        return [f"{each}={_write(value)}" for each, value in settings if value != vars(STRETCHES[name])[each]]

    nearest = min(STRETCHES, key=lambda name: len(differences(name)))
    return ":".join([nearest, *filter(None, [",".join(differences(nearest))])])


def _write(value: object) -> str:
    if isinstance(value, bool | None):
        return str(value).lower()
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parse(setting: str, value: str, default: object) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(default, float):
            return float(value)
        if isinstance(default, str):
            return value
        if (setting, value) == ("percentiles", "none"):
            return None
        return tuple(float(number) for number in value.split("/"))
    except (ValueError, KeyError):
        expected = "true or false" if isinstance(default, bool) else "a number, or several with / between them"
        raise SettingError(f"stretch: got {setting}={value}, expected {expected}") from None


def apply_stretch(bands: Fluxes, stretch: Stretch) -> NDArray[np.uint8]:
    """Turn fluxes into colours.

    Args:
        bands: (1 or 3, height, width); NaN, infinities and what is beyond ``HIGHEST_FLUX`` are bad pixels, and filled.
        stretch: how.

    Returns:
        (height, width, 1 or 3), the rows in the same order.

    Raises:
        SettingError: another shape, or scales for three bands and one band.

    >>> apply_stretch(np.array([[[0.0, 0.5, 1.0]]], np.float32), Stretch(curve="linear"))[..., 0]
    array([[  0, 128, 255]], dtype=uint8)
    """
    if bands.ndim != 3 or len(bands) not in (1, 3):
        raise SettingError(f"bands: got shape {bands.shape}, expected (1 or 3, height, width)")
    if len(stretch.scales) not in (1, len(bands)):
        raise SettingError("stretch: got scales for 3 bands, and an image of one; give one scale")
    _, height, width = bands.shape
    scales = np.array(stretch.scales, np.float32)[:, None, None]
    colours = np.empty((height, width, len(bands)), np.uint8)
    with np.errstate(all="ignore"):
        low, high, sky = _find_range(bands, scales, stretch.percentiles) if stretch.percentiles else (0.0, 1.0, 0.0)
        rows = max(1, _BLOCK // max(1, width))
        for start in range(0, height, rows):
            part = bands[:, start : start + rows]
            x = part / scales
            if stretch.percentiles:
                x -= np.float32(low)
            unit = 1 / ((high - low) * stretch.softening) if low < high else 0
            x *= np.float32(unit)
            fill_bad(x, ~(np.abs(part) < HIGHEST_FLUX), (sky - low) * unit)  # NaN is not less
            colours[start : start + rows] = np.moveaxis(_to_levels(x, stretch), 0, -1)
    return colours


def _to_levels(x: Fluxes, stretch: Stretch) -> Fluxes:
    """Whole numbers from 0 to 255 of bands in units of ``softening``, which are written over."""
    curve = _CURVES[stretch.curve]
    mean = x.mean(axis=0)
    if stretch.keep_colour and len(x) == 3:
        x *= np.divide(curve(mean), mean, out=np.zeros_like(mean), where=mean != 0)
    else:
        x = curve(x)
    if stretch.faint and len(x) == 3:
        bright, grey = mean.clip(0), x.mean(axis=0)
        x -= grey
        x *= bright / (bright + np.float32(stretch.faint / stretch.softening))
        x += grey
    black, white = stretch._edges()
    x *= np.float32(255 / (white - black))
    x -= np.float32(255 * black / (white - black))
    return np.rint(x, out=x).clip(0, 255, out=x)


def fill_bad(x: Fluxes, bad: NDArray[np.bool_], sky: float = 0.0) -> None:
    """Give bad pixels of (bands, height, width) the mean of the bands that are good there, or sky; in place."""
    x[bad] = 0
    if len(x) == 3 and bad.any():
        good = np.maximum(3 - bad.sum(axis=0), 1).astype(np.float32)
        np.copyto(x, x.sum(axis=0) / good, where=bad)
    x[:, bad.all(axis=0)] = sky


def _find_range(bands: Fluxes, scales: Fluxes, percentiles: tuple[float, float]) -> tuple[float, float, float]:
    """These percentiles of the mean of the bands, in units of their scales, where all of them are good; and the sky."""
    good = np.abs(bands) < HIGHEST_FLUX
    x = bands / scales
    means = x.mean(axis=0)[good.all(axis=0)]
    if not means.size:
        means = x[good]  # each pixel lacks a band
    if not means.size:
        return 0.0, 0.0, 0.0
    low, high, sky = np.percentile(means, (*percentiles, _SKY))
    return float(low), float(high), float(np.clip(sky, low, high))
