"""``zoobot represent``."""

from pathlib import Path
from typing import Annotated

import typer

from zoobot.cli.fits_options import Bands, BandsLast, Hdu, KeepZeros, MaskHdu, StretchName, ZeroPoint, make_layout

__all__ = ["represent"]


def represent(
    checkpoint_dir: Annotated[Path, typer.Option(help="Model folder that `zoobot train` or `finetune` made.")],
    save_loc: Annotated[Path, typer.Option(help="File to write: .parquet.")],
    folder: Annotated[Path | None, typer.Option(help="Folder of images.")] = None,
    file_format: Annotated[
        str, typer.Option(help="Which images of the folder: png, jpg, fits or any; auto: the only ones there are.")
    ] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", help="Look in the folder's folders too.")] = False,
    catalog: Annotated[Path | None, typer.Option(help="Table with id_str and file_loc, instead of a folder.")] = None,
    image_root: Annotated[
        Path | None,
        typer.Option(help="Where the catalog's relative file_loc start.", show_default="the catalog's folder"),
    ] = None,
    shard_dir: Annotated[
        str | None, typer.Option(help="Folder of shards, or its URL, instead of a folder of images.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which of the shards: train, test or unlabelled.")] = "test",
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    columns: Annotated[str, typer.Option(help="list (one column representation) or each (feature_0, …).")] = "list",
    pca: Annotated[int | None, typer.Option(help="Compress to so many principal components of these.")] = None,
    pca_from: Annotated[
        Path | None, typer.Option(help="Compress with the components saved beside this .parquet.")
    ] = None,
    tta: Annotated[str, typer.Option(help="Mean over views: none, or dihedral (8 turns and mirrors).")] = "none",
    batch_size: Annotated[int, typer.Option(help="Galaxies at a time.")] = 64,
    workers: Annotated[int | None, typer.Option(help="Processes that decode.", show_default="by machine")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.", show_default="the best there is")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --save-loc.")] = False,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Write what the encoder sees in each galaxy, a vector, for similar, odd and models of your own.

    Images that cannot be read are listed in a second table, NAME.failed.csv.

    Examples:

        zoobot represent --checkpoint-dir model --folder images --save-loc reps.parquet

        zoobot represent --checkpoint-dir model --catalog all.csv --pca 64 --tta dihedral --save-loc reps.parquet

        zoobot represent --checkpoint-dir model --catalog new.csv --pca-from reps.parquet --save-loc new.parquet
    """
    from zoobot.data.stretch import parse_stretch
    from zoobot.predictions import representations

    config = representations.RepresentConfig(
        checkpoint_dir=checkpoint_dir,
        save_loc=save_loc,
        folder_to_predict=folder,
        file_format=file_format,
        recursive=recursive,
        catalog=catalog,
        image_root=image_root,
        shard_dir=shard_dir,
        split=split,
        dtype=dtype,
        columns=columns,
        pca=pca,
        pca_from=pca_from,
        tta=tta,
        batch_size=batch_size,
        workers=workers,
        device=device,
        overwrite=overwrite,
        layout=make_layout(hdu, bands, bands_last, mask_hdu, zero_point, keep_zeros),
        stretch=None if stretch is None else parse_stretch(stretch),
    )
    done = representations.represent(config)
    typer.echo(f"{done.save_loc}: {done.galaxies} of {done.galaxies + done.failed} galaxies, {done.features} features")
    if done.explained is not None and done.components_loc is not None:
        typer.echo(f"{done.components_loc}: the components, which keep {done.explained:.1%} of the variance")
    if done.failed:
        typer.echo(f"{done.failed_loc}: {done.failed} images that could not be read, with the reason")
