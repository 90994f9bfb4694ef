"""The pixels and the header of one cutout: copied, shifted to the middle, or turned north up."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from zoobot.cutouts.mosaics import Mosaic
from zoobot.data.stretch import HIGHEST_FLUX
from zoobot.errors import ImageError

__all__ = ["Cutout", "Source", "cut"]

Floats = NDArray[np.float64]
Planes = NDArray[np.float32]

_MARGIN = 12  # a cubic spline's memory of a pixel falls by 0.27 with each one, here to 1e-7
_NODES = 9  # each way, where the sky is computed in full; a spline in between is good to a millionth of a pixel
_STRIP = 2**21  # points interpolated at a time


class Source(NamedTuple):
    """A galaxy to cut out of a mosaic, with columns of :func:`zoobot.cutouts.places.place_sources`."""

    row: int
    name: str
    ra: float
    dec: float
    x: float
    y: float
    scale: float
    pixel_scale: float
    side: int
    left: int
    bottom: int


class Cutout(NamedTuple):
    """Pixels, (planes, side, side), their header, and the share of them that lies on the mosaic."""

    pixels: Planes
    header: fits.Header
    share_covered: float


IsGood = Callable[[Planes], NDArray[np.bool_]]
Order = Literal[1, 3]
Move = Callable[[Floats, Order], Floats]  # resamples a plane with splines of an order


def cut(mosaic: Mosaic, source: Source, *, align: str, zeros_are_bad: bool) -> Cutout:
    """Cut one galaxy out; :class:`zoobot.cutouts.making.CutoutConfig` tells of the settings.

    Raises:
        ImageError: the mosaic cannot be read there or has no good pixel, or the cutout has no place on it.
    """
    good = functools.partial(_is_good, zeros_are_bad=zeros_are_bad and mosaic.zeros_are_told)
    cutout = _CUT[align](mosaic, source, good)
    if not good(cutout.pixels).any():
        raise ImageError(f"the mosaic {mosaic.path.name} has no good pixel there")
    return cutout


def _copy(mosaic: Mosaic, source: Source, good: IsGood) -> Cutout:
    window = (source.left, source.bottom, source.side, source.side)
    return Cutout(mosaic.read(*window), _move_header(mosaic, *window[:2]), float(mosaic.covers(*window).mean()))


def _shift(mosaic: Mosaic, source: Source, good: IsGood) -> Cutout:
    left, bottom = source.x - (source.side - 1) / 2, source.y - (source.side - 1) / 2
    by = (source.bottom - bottom, source.left - left)

    def move(plane: Floats, order: Order) -> Floats:
        shifted: Floats = ndimage.shift(plane, by, order=order, mode="mirror")
        return shifted[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]

    length = source.side + 2 * _MARGIN
    window = (source.left - _MARGIN, source.bottom - _MARGIN, length, length)
    pixels, share = _resample(mosaic, window, move, good)
    return Cutout(pixels, _move_header(mosaic, left, bottom), share)


def _turn(mosaic: Mosaic, source: Source, good: IsGood) -> Cutout:
    half = source.side / 2
    nodes = np.linspace(-half, half, _NODES)  # in pixels of the cutout, from its middle, up and to the right
    x, y = mosaic.to_pixels(_tangent_plane(source, nodes))
    left, bottom = (int(np.floor(np.nan_to_num(each).min())) - _MARGIN for each in (x, y))
    width, height = (
        int(np.ceil(np.nan_to_num(each).max())) + _MARGIN + 1 - start for each, start in ((x, left), (y, bottom))
    )
    ratio = source.pixel_scale / source.scale
    if not np.isfinite(x + y).all() or max(width, height) > 2 * (source.side * ratio + 2 * _MARGIN):
        raise ImageError("its cutout crosses the mosaic's seam or the limits of its projection")
    columns, rows = RectBivariateSpline(nodes, nodes, x - left), RectBivariateSpline(nodes, nodes, y - bottom)
    fine = max(1, int(np.ceil(ratio - 0.1)))  # where pixels become larger, each is the mean of some
    points = (np.arange(source.side * fine) + 0.5) / fine - half

    def move(plane: Floats, order: Order) -> Floats:
        coefficients = ndimage.spline_filter(plane, order, mode="mirror") if order == 3 else plane
        turned = np.empty((source.side, source.side))
        step = max(1, _STRIP // (source.side * fine**2))
        for first in range(0, source.side, step):
            strip = points[first * fine : (first + step) * fine]
            at = np.stack([rows(strip, points), columns(strip, points)])
            values = ndimage.map_coordinates(coefficients, at, order=order, mode="mirror", prefilter=False)
            turned[first : first + step] = values.reshape(-1, fine, source.side, fine).mean(axis=(1, 3))
        return turned

    pixels, share = _resample(mosaic, (left, bottom, width, height), move, good)
    if not mosaic.is_by_area:
        pixels *= np.float32(ratio**2)
    return Cutout(pixels, _north_header(mosaic, source), share)


_CUT: dict[str, Callable[[Mosaic, Source, IsGood], Cutout]] = {"pixels": _copy, "centre": _shift, "north": _turn}


def _tangent_plane(source: Source, points: Floats) -> Floats:
    """Vectors towards a grid around the galaxy, (rows, columns, 3): north up, east left (not of unit length)."""
    ra, dec, step = np.radians([source.ra, source.dec, source.pixel_scale / 3600])
    towards = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.cross(towards, east)
    up, right = points[:, None, None] * step, points[None, :, None] * step
    return np.asarray(towards + up * north - right * east)


def _resample(mosaic: Mosaic, window: tuple[int, int, int, int], move: Move, good: IsGood) -> tuple[Planes, float]:
    """Move the planes of a window; also give the share of the result that lies on the mosaic."""
    pixels = np.stack([_interpolate(plane, good(plane), move) for plane in mosaic.read(*window)])
    covers = mosaic.covers(*window)
    share = 1.0 if covers.all() else float((move(covers.astype(np.float64), 1) > 0.5).mean())
    return pixels, share


def _interpolate(plane: Planes, good: NDArray[np.bool_], move: Move) -> Planes:
    """Move a plane by cubic splines; NaN where bad pixels, filled with the nearest good one, weigh more than half."""
    if good.all():
        return move(plane.astype(np.float64), 3).astype(np.float32)
    if not good.any():
        return np.full_like(move(good.astype(np.float64), 1), np.nan, np.float32)
    nearest = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
    moved = move(plane[tuple(nearest)].astype(np.float64), 3)
    moved[move(good.astype(np.float64), 1) < 0.5] = np.nan
    return moved.astype(np.float32)


def _move_header(mosaic: Mosaic, left: float, bottom: float) -> fits.Header:
    header = mosaic.own_header.copy()
    header["CRPIX1"], header["CRPIX2"] = mosaic.wcs.wcs.crpix - (left, bottom)
    return header


def _north_header(mosaic: Mosaic, source: Source) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = source.ra, source.dec
    wcs.wcs.crpix = [(source.side + 1) / 2] * 2
    wcs.wcs.cdelt = [-source.pixel_scale / 3600, source.pixel_scale / 3600]
    return mosaic.make_header(wcs)


def _is_good(plane: Planes, *, zeros_are_bad: bool) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = np.abs(plane) < HIGHEST_FLUX  # NaN is not less
    return good & (plane != 0) if zeros_are_bad else good
