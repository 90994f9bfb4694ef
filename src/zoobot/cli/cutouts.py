"""``zoobot cutouts``."""

from pathlib import Path
from typing import Annotated

import typer

from zoobot.cli.fits_options import Hdu, KeepZeros, parse_hdu

__all__ = ["cutouts"]


def cutouts(
    mosaic: Annotated[
        list[str], typer.Option(help="FITS file, folder of them, or 'pattern'; may be given several times.")
    ],
    catalog: Annotated[Path, typer.Option(help="Table with id_str, ra and dec (degrees, ICRS).")],
    save_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    size_arcsec: Annotated[float | None, typer.Option(help="Height and width on the sky.")] = None,
    radius_column: Annotated[
        str | None, typer.Option(help="Instead, column of the catalog with radii in arcsec.")
    ] = None,
    radius_factor: Annotated[float, typer.Option(help="So many radii to each side of the galaxy.")] = 3.0,
    size_pixels: Annotated[
        int | None,
        typer.Option(help="Height and width in pixels, instead; with --align north beside a size on the sky, too."),
    ] = None,
    align: Annotated[
        str, typer.Option(help="pixels (copied), centre (shifted by part of a pixel) or north (up, east left).")
    ] = "pixels",
    hdu: Hdu = None,
    keep_zeros: KeepZeros = None,
    files: Annotated[
        bool,
        typer.Option("--files/--no-files", help="Write a file for each galaxy, or only where it is in the mosaics."),
    ] = True,
    workers: Annotated[int | None, typer.Option(help="Processes that cut.", show_default="one per core")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the cutouts that are there.")] = False,
) -> None:
    """Cut galaxies out of FITS mosaics, and make a catalog of the cutouts.

    Galaxies outside of the mosaics are listed in cutouts.failed.csv. Interrupted, it goes on where it stopped when the
    same command is run again.

    Examples:

        zoobot cutouts --mosaic mosaic.fits --catalog sources.csv --save-dir cutouts --size-arcsec 30

        zoobot cutouts --mosaic tiles --catalog sources.parquet --save-dir cutouts --radius-column petro_r90
        --size-pixels 300 --align north

        zoobot cutouts --mosaic 'tiles/*-r.fits.fz' --catalog sources.csv --save-dir places --size-pixels 128 --no-files
    """
    from zoobot.cutouts.making import CutoutConfig, make_cutouts

    config = CutoutConfig(
        size_arcsec=size_arcsec,
        radius_column=radius_column,
        radius_factor=radius_factor,
        size_pixels=size_pixels,
        align=align,
        hdu=parse_hdu(hdu),
        zeros_are_bad=not keep_zeros,
        files=files,
    )
    made = make_cutouts(list(mosaic), catalog, save_dir, config, workers=workers, overwrite=overwrite)
    typer.echo(f"{made.catalog}: {made.galaxies} of {made.galaxies + made.failed} galaxies")
    if made.failed:
        typer.echo(f"{made.failed_loc}: {made.failed} without a cutout, with the reason")
