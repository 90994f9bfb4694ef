"""``zoobot stretch``."""

from pathlib import Path
from typing import Annotated

import typer

from zoobot.cli.fits_options import Bands, BandsLast, Hdu, KeepZeros, MaskHdu, ZeroPoint, make_layout

__all__ = ["stretch"]


def stretch(
    images: Annotated[list[str] | None, typer.Argument(help="FITS files.")] = None,
    save_loc: Annotated[Path, typer.Option(help="Picture to write, PNG or JPEG.")] = Path("stretch.png"),
    stretch: Annotated[
        list[str] | None,
        typer.Option(
            help="Stretch, changed as in decals:upper=200; give several to compare them.",
            show_default="all that fit the bands",
        ),
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Table with id_str and file_loc, to draw images of at random.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Where relative file_loc start.", show_default="the catalog's folder")
    ] = None,
    count: Annotated[int, typer.Option(help="How many images of the catalog.")] = 8,
    size: Annotated[int | None, typer.Option(help="Side of each image, in pixels.", show_default="its own")] = None,
    seed: Annotated[int, typer.Option(help="What decides which images.")] = 0,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Draw FITS images with a stretch, to choose one by eye; and print their fluxes and bad pixels.

    One image with one stretch is written pixel by pixel, as a model sees it; others as rows of a page, a column for
    each stretch.

    Examples:

        zoobot stretch galaxy.fits --stretch decals --save-loc preview.png

        zoobot stretch --catalog catalog.csv --count 12 --stretch decals --stretch decals:faint=1 --save-loc page.png
    """
    from zoobot.data import preview
    from zoobot.data.fits_images import FitsLayout

    lines = preview.preview_stretches(
        save_loc,
        images or [],
        stretch or [],
        catalog=catalog,
        image_root=image_root,
        count=count,
        size=size,
        seed=seed,
        layout=FitsLayout(**make_layout(hdu, bands, bands_last, mask_hdu, zero_point, keep_zeros)),
    )
    for line in lines:
        typer.echo(line)
    single = len(lines) == 1 and len(stretch or []) == 1
    typer.echo(f"{save_loc}" if single else f"{save_loc}: rows are images, columns are stretches")
