"""The options by which commands are told how to read FITS images."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from zoobot.data.fits_images import FitsConfig

__all__ = [
    "Bands",
    "BandsLast",
    "Hdu",
    "KeepZeros",
    "MaskHdu",
    "StretchName",
    "ZeroPoint",
    "make_config",
    "make_layout",
    "parse_hdu",
]

_PANEL = "FITS images"

StretchName = Annotated[
    str | None,
    typer.Option(
        help="From fluxes to colours: decals, lupton or percentile, changed as in decals:upper=200,faint=0; "
        "for shards also none, to keep the fluxes.",
        show_default="the model's, or percentile",
        rich_help_panel=_PANEL,
    ),
]
Hdu = Annotated[
    str | None,
    typer.Option(
        help="Number or name of the extension.", show_default="the first with an image", rich_help_panel=_PANEL
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Bands of red, green and blue, or one: z,r,g by the header's names, or 2,1,0 by number.",
        show_default="all, blue first",
        rich_help_panel=_PANEL,
    ),
]
BandsLast = Annotated[
    bool | None,
    typer.Option(
        "--bands-last/--bands-first",
        help="Where numpy has the bands: last is the first axis of FITS (NAXIS1).",
        show_default="first",
        rich_help_panel=_PANEL,
    ),
]
MaskHdu = Annotated[
    str | None, typer.Option(help="Extension with a mask: what is not 0 is bad.", rich_help_panel=_PANEL)
]
ZeroPoint = Annotated[
    str | None,
    typer.Option(
        help="AB magnitude of one unit of flux, or the header's keyword for it; fluxes become nanomaggies. Or none.",
        show_default="fluxes as they are",
        rich_help_panel=_PANEL,
    ),
]
KeepZeros = Annotated[
    bool | None,
    typer.Option(
        "--keep-zeros/--zeros-are-bad",
        help="Whether fluxes of exactly 0 are fluxes, or bad pixels.",
        show_default="bad",
        rich_help_panel=_PANEL,
    ),
]


def make_layout(
    hdu: str | None,
    bands: str | None,
    bands_last: bool | None,
    mask_hdu: str | None,
    zero_point: str | None,
    keep_zeros: bool | None,
) -> dict[str, Any]:
    """The settings of a :class:`~zoobot.data.fits_images.FitsLayout` that options give, and none of the others."""
    given = {
        "hdu": hdu and parse_hdu(hdu),
        "bands": bands and tuple(band.strip() for band in bands.split(",")),
        "bands_last": bands_last,
        "mask_hdu": mask_hdu and parse_hdu(mask_hdu),
        "zero_point": zero_point and _magnitude_or_keyword(zero_point),
        "zeros_are_bad": None if keep_zeros is None else not keep_zeros,
    }
    return {name: None if value == "none" else value for name, value in given.items() if value is not None}


def make_config(
    stretch: str | None, layout: Mapping[str, Any], known: "FitsConfig | None" = None
) -> "FitsConfig | None":
    """Put them together, and in place of what is known already; nothing if neither is given."""
    from zoobot.data.fits_images import FitsConfig
    from zoobot.data.stretch import parse_stretch

    if stretch is None and not layout:
        return None
    known = known or FitsConfig()
    chosen = known.stretch if stretch is None else None if stretch == "none" else parse_stretch(stretch)
    return FitsConfig(replace(known.layout, **layout), chosen)


def parse_hdu(text: str | None) -> int | str | None:
    """Make a number of an extension's number."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else text


def _magnitude_or_keyword(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
