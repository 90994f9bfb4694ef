"""Where in mosaics the galaxies of a catalog are, and how large their cutouts become."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from zoobot.cutouts.mosaics import Mosaic, open_mosaic
from zoobot.errors import CatalogError, SettingError

__all__ = ["ALIGNMENTS", "CutoutConfig", "check_sources", "place_sources"]

ALIGNMENTS = ("pixels", "centre", "north")

Floats = NDArray[np.float64]

_MOST_PIXELS = 8192  # height and width
_NODES = 9  # each way, where the edges of a mosaic are looked up


@dataclass(frozen=True)
class CutoutConfig:
    """How large cutouts are, how they lie, and where in the mosaics the pixels are.

    Attributes:
        size_arcsec: height and width on the sky.
        radius_column: instead, the catalog's column of radii, in arcsec.
        radius_factor: so many radii are shown to each side of the galaxy.
        size_pixels: height and width in pixels, instead; with ``align`` "north" also beside one of the others, so that
            the cutouts are resampled to this many pixels.
        align: "pixels" copies whole pixels, the galaxy within half a pixel of the middle; "centre" shifts it, by cubic
            interpolation, exactly to the middle; "north" resamples onto a tangent plane with north up and east left.
        hdu: number or name of the extension; the first with an image when left out.
        zeros_are_bad: fluxes of floating point that are exactly 0 are bad pixels, which are not interpolated; copied
            pixels stay what they are.
        files: write a FITS file for each galaxy, and not only where it is in the mosaics.

    Raises:
        SettingError: a value, or what they say together, is not what it may be.
    """

    size_arcsec: float | None = None
    radius_column: str | None = None
    radius_factor: float = 3.0
    size_pixels: int | None = None
    align: str = "pixels"
    hdu: int | str | None = None
    zeros_are_bad: bool = True
    files: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.align not in ALIGNMENTS:
            raise SettingError(f"align: got {self.align!r}, expected {', '.join(ALIGNMENTS)}")
        if not self.files and self.align != "pixels":
            raise SettingError(f"align: without files only pixels will do, as nothing is resampled; got {self.align!r}")
        if self.size_arcsec is not None and not 0 < self.size_arcsec < np.inf:
            raise SettingError(f"size_arcsec: got {self.size_arcsec}, expected more than 0")
        if not 0 < self.radius_factor < np.inf:
            raise SettingError(f"radius_factor: got {self.radius_factor}, expected more than 0")
        if self.size_pixels is not None and not 1 <= self.size_pixels <= _MOST_PIXELS:
            raise SettingError(f"size_pixels: got {self.size_pixels}, expected 1 to {_MOST_PIXELS}")
        on_sky = (self.size_arcsec is not None) + (self.radius_column is not None)
        if on_sky > 1 or not (on_sky or self.size_pixels):
            raise SettingError("expected one of size_arcsec, radius_column and size_pixels, to say how large they are")
        if on_sky and self.size_pixels and self.align != "north":
            raise SettingError(
                f"size_pixels beside a size on the sky resamples; that needs align north, not {self.align}"
            )


def check_sources(frame: pd.DataFrame, config: CutoutConfig, name: str) -> None:
    """See that a catalog has the columns that cutouts need, with positions on the sky.

    Raises:
        CatalogError: it has not; ``name`` tells which catalog it is.
    """
    wanted = ["id_str", "ra", "dec", *([config.radius_column] if config.radius_column else [])]
    missing = [column for column in wanted if column not in frame]
    if missing:
        there = ", ".join(map(str, frame.columns[:12]))
        raise CatalogError(f"{name}: missing columns: {', '.join(missing)}; it has {there}; rename its columns")
    faults = []
    for column, (least, most) in {"ra": (0, 360), "dec": (-90, 90)}.items():
        values = _numbers(frame[column])
        rows = np.flatnonzero(~((values >= least) & (values <= most)))  # NaN too
        if rows.size:
            first = f"row {rows[0] + 1}: {frame[column].iloc[rows[0]]}"
            faults.append(f"- {column}: {rows.size:,} wrong (first {first}); expected {least} to {most} degrees")
    if faults:
        raise CatalogError("\n".join([f"{name}: faults, with rows counted from 1:", *faults]))


def _numbers(column: "pd.Series[Any]") -> Floats:
    values: Floats = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def place_sources(paths: Sequence[Path], frame: pd.DataFrame, config: CutoutConfig) -> pd.DataFrame:
    """For each row of the catalog, the mosaic that covers most of its cutout, by headers alone.

    Columns: ``mosaic`` (its number, -1 for none), ``x`` and ``y`` (from 0), ``scale`` (of the mosaic there) and
    ``pixel_scale`` (of the cutout; arcsec), ``side`` (in pixels of the cutout), ``left`` and ``bottom`` (of whole
    pixels), ``share_covered``, and ``reason``, why there can be no cutout.

    Raises:
        ImageError: a mosaic cannot be read, or has no WCS of the sky.
    """
    ra, dec = (np.radians(_numbers(frame[column])) for column in ("ra", "dec"))
    sky = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    sizes = _sizes(frame, config)
    columns = {name: np.zeros(len(frame)) for name in _Place._fields}
    mosaic_of = np.full(len(frame), -1)
    tree = cKDTree(sky)
    bands: dict[str, Path] = {}
    for number, path in enumerate(paths):
        with open_mosaic(path, config.hdu) as mosaic:
            bands.setdefault(mosaic.band, path)
            if len(bands) > 1:
                told = " and ".join(f"{of.name} of {band or 'none'}" for band, of in bands.items())
                raise SettingError(
                    f"mosaics (--mosaic): {told} are of different bands (FILTER); cut one band at a time, into folders "
                    "of their own, and put the files into one catalog as file_loc_g, file_loc_r, …"
                )
            near = np.asarray(tree.query_ball_point(*_circle(mosaic)), np.intp)
            place = _place_in(mosaic, sky[near], sizes[near], config) if near.size else None
        if place is not None:
            better = place.share_covered > columns["share_covered"][near]
            mosaic_of[near[better]] = number
            for name, values in place._asdict().items():
                columns[name][near[better]] = values[better]
    places = pd.DataFrame({"mosaic": mosaic_of, **columns})
    places["reason"] = _explain(places, sizes, config)
    whole = ["side", "left", "bottom"]
    places[whole] = places[whole].fillna(0).astype(np.int64)
    return places


class _Place(NamedTuple):
    """Where sources are on a mosaic, arrays (sources,); see :func:`place_sources`."""

    x: Floats
    y: Floats
    scale: Floats
    pixel_scale: Floats
    side: Floats
    left: Floats
    bottom: Floats
    share_covered: Floats


def _sizes(frame: pd.DataFrame, config: CutoutConfig) -> Floats:
    """Arcsec; NaN where it is a number of pixels, and where the radius is none."""
    if config.radius_column is None:
        return np.full(len(frame), np.nan if config.size_arcsec is None else config.size_arcsec)
    sizes = 2 * config.radius_factor * _numbers(frame[config.radius_column])
    return np.where((sizes > 0) & np.isfinite(sizes), sizes, np.nan)


def _circle(mosaic: Mosaic) -> tuple[Floats, float]:
    """A unit vector, and how far from it (as a chord) the mosaic reaches."""
    height, width = mosaic.shape
    x, y = np.linspace(-0.5, width - 0.5, _NODES), np.linspace(-0.5, height - 0.5, _NODES)
    edges = mosaic.to_sky(*(side.ravel() for side in np.meshgrid(x, y)))
    middle = edges[len(edges) // 2]
    if not np.isfinite(edges).all():  # a map of the whole sky has corners that are nowhere
        return np.array([1.0, 0.0, 0.0]), 2.0
    return middle, 1.1 * float(np.linalg.norm(edges - middle, axis=-1).max())


def _place_in(mosaic: Mosaic, sky: Floats, sizes: Floats, config: CutoutConfig) -> _Place:
    x, y = mosaic.to_pixels(sky)
    here = mosaic.to_sky(x, y)
    area = np.cross(mosaic.to_sky(x + 1, y) - here, mosaic.to_sky(x, y + 1) - here)
    scale = np.sqrt(np.linalg.norm(area, axis=-1))  # radians
    # far from the image, distortions may lead anywhere: what is found must lead back
    found = np.linalg.norm(here - sky, axis=-1) < scale
    height, width = mosaic.shape
    inside = found & (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    scale = np.degrees(scale) * 3600
    side = np.full(len(x), float(config.size_pixels)) if config.size_pixels else np.rint(sizes / scale)
    pixel_scale = sizes / side if config.size_pixels and not np.isnan(sizes).all() else scale
    across = side * pixel_scale / scale  # pixels of the mosaic
    left, bottom = np.rint(x - (side - 1) / 2), np.rint(y - (side - 1) / 2)
    share = _overlap(x - across / 2, across, width) * _overlap(y - across / 2, across, height)
    if config.align != "north":
        share = _overlap(left, side, width) * _overlap(bottom, side, height)
    # a cutout that is too large or has no size is on the mosaic all the same: the reason is told later
    share = np.where(inside, np.maximum(np.nan_to_num(share), 1e-9), 0)
    return _Place(x, y, scale, pixel_scale, side, left, bottom, share)


def _overlap(start: Floats, length: Floats, available: int) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Floats = np.clip(np.minimum(start + length, available) - np.maximum(start, 0), 0, None) / length
    return share


def _explain(places: pd.DataFrame, sizes: Floats, config: CutoutConfig) -> list[str]:
    """Why there will be no cutout; empty where there will be one."""
    reasons = np.full(len(places), "", object)
    across = np.maximum(places["side"], places["side"] * places["pixel_scale"] / places["scale"].replace(0, np.nan))
    for row in np.flatnonzero(~((places["side"] >= 1) & (across <= _MOST_PIXELS))):
        wide = across[row] if np.isfinite(across[row]) else 0
        reasons[row] = f"its cutout would be {wide:.0f} pixels wide, expected 1 to {_MOST_PIXELS}"
    if config.radius_column is not None:
        reasons[np.isnan(sizes)] = f"its {config.radius_column} is no radius: missing, 0 or less"
    reasons[places["mosaic"] < 0] = "it lies outside of the mosaics"
    return list(reasons)
