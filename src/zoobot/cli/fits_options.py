"""The options by which commands are told how to read FITS images."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoobot.data.fits_images import FitsConfig, FitsLayout

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
    bool, typer.Option("--bands-last", help="Bands are the first axis of FITS (NAXIS1).", rich_help_panel=_PANEL)
]
MaskHdu = Annotated[
    str | None, typer.Option(help="Extension with a mask: what is not 0 is bad.", rich_help_panel=_PANEL)
]
ZeroPoint = Annotated[
    str | None,
    typer.Option(
        help="AB magnitude of one unit of flux, or the header's keyword for it; fluxes become nanomaggies.",
        show_default="fluxes as they are",
        rich_help_panel=_PANEL,
    ),
]
KeepZeros = Annotated[
    bool,
    typer.Option("--keep-zeros", help="Fluxes of exactly 0 are no bad pixels.", rich_help_panel=_PANEL),
]


def make_layout(
    hdu: str | None, bands: str | None, bands_last: bool, mask_hdu: str | None, zero_point: str | None, keep_zeros: bool
) -> "FitsLayout | None":
    """Make the layout that options describe; nothing if none is given."""
    from zoobot.data.fits_images import FitsLayout

    layout = FitsLayout(
        hdu=parse_hdu(hdu),
        bands=tuple(band.strip() for band in bands.split(",")) if bands is not None else (),
        bands_last=bands_last,
        mask_hdu=parse_hdu(mask_hdu),
        zero_point=_magnitude_or_keyword(zero_point),
        zeros_are_bad=not keep_zeros,
    )
    return None if layout == FitsLayout() else layout


def make_config(stretch: str | None, layout: "FitsLayout | None") -> "FitsConfig | None":
    """Put them together; nothing if neither is given."""
    from zoobot.data.fits_images import FitsConfig, FitsLayout
    from zoobot.data.stretch import parse_stretch

    if stretch is None and layout is None:
        return None
    layout = layout or FitsLayout()
    if stretch is None:
        return FitsConfig(layout)
    return FitsConfig(layout, None if stretch == "none" else parse_stretch(stretch))


def parse_hdu(text: str | None) -> int | str | None:
    """Make a number of an extension's number."""
    return int(text) if text is not None and text.isdecimal() else text


def _magnitude_or_keyword(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
