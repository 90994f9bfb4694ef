"""``zoobot create-shards``, ``zoobot merge-shards`` and ``zoobot check-shards``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoobot.cli.fits_options import (
    Bands,
    BandsLast,
    Hdu,
    KeepZeros,
    MaskHdu,
    StretchName,
    ZeroPoint,
    make_config,
    make_layout,
)

if TYPE_CHECKING:
    from zoobot.data.manifest import Manifest

__all__ = ["check_shards", "create_shards", "merge_shards"]


def create_shards(
    labelled_catalog: Annotated[
        Path, typer.Option(help="Table with id_str, file_loc and a column of votes per answer.")
    ],
    shard_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    unlabelled_catalog: Annotated[Path | None, typer.Option(help="Table with id_str and file_loc.")] = None,
    schema: Annotated[
        str, typer.Option(help="Decision tree: a name (see `zoobot schemas`) or a TOML file.")
    ] = "gz_decals",
    img_size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 300,
    eval_size: Annotated[
        int | None,
        typer.Option(help="Galaxies held back for testing.", show_default="a fifth, at most 5000"),
    ] = None,
    max_labelled: Annotated[int | None, typer.Option(help="Use no more labelled galaxies than this.")] = None,
    max_unlabelled: Annotated[int | None, typer.Option(help="Use no more unlabelled galaxies than this.")] = None,
    color: Annotated[
        bool, typer.Option("--color/--greyscale", help="Keep three channels, or one of luminance.")
    ] = True,
    encoding: Annotated[str, typer.Option(help="raw (fastest to read), png (lossless) or jpeg.")] = "raw",
    fit: Annotated[
        str, typer.Option(help="Images that are not square: crop to the centre, or pad with black.")
    ] = "crop",
    image_root: Annotated[
        Path | None,
        typer.Option(help="Where relative file_loc start.", show_default="the catalog's folder"),
    ] = None,
    seed: Annotated[int, typer.Option(help="What decides the split.")] = 0,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
    trust_paths: Annotated[
        bool, typer.Option("--trust-paths", help="Do not look first whether all the files exist.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode and write.", show_default="one per core")
    ] = None,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="List unreadable images and go on.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the shards that are there.")] = False,
    part: Annotated[
        str | None,
        typer.Option(help="Write a share only, i/n, beside other machines that write theirs; then merge-shards."),
    ] = None,
) -> None:
    """Write a catalog and its images as shards, which are fast to train on.

    Interrupted, it goes on where it stopped when the same command is run again.

    Examples:

        zoobot create-shards --labelled-catalog catalog.csv --shard-dir shards --schema gz2 --img-size 300

        zoobot create-shards --labelled-catalog catalog.csv --shard-dir debug --img-size 32 --max-labelled 500

        zoobot create-shards --labelled-catalog fits.csv --shard-dir shards --stretch decals --bands z,r,g

        zoobot create-shards --labelled-catalog catalog.csv --shard-dir /shared/shards --part 2/4
    """
    from zoobot import schemas
    from zoobot.data import shard_writing

    config = shard_writing.ShardConfig(
        img_size=img_size,
        color=color,
        encoding=encoding,
        eval_size=eval_size,
        max_labelled=max_labelled,
        max_unlabelled=max_unlabelled,
        fit=fit,
        fits=make_config(stretch, make_layout(hdu, bands, bands_last, mask_hdu, zero_point, keep_zeros)),
        seed=seed,
        trust_paths=trust_paths,
        workers=workers,
        skip_bad_images=skip_bad_images,
        overwrite=overwrite,
    )
    manifest = shard_writing.create_shards(
        labelled_catalog,
        shard_dir,
        schemas.load(schema),
        config,
        unlabelled_catalog=unlabelled_catalog,
        image_root=image_root,
        part=part,
    )
    _report(shard_dir, manifest, part)


def _report(shard_dir: Path, manifest: "Manifest", part: str | None) -> None:
    """Say what was made, and what to do next."""
    from zoobot.data import shard_writing
    from zoobot.data.shard_parts import Part, part_folder

    quoted = shlex.quote(str(shard_dir))
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts.items()) or "no"
    place = f"{shard_dir}, part {part}" if part else str(shard_dir)
    typer.echo(f"{place}: {counts} galaxies, {manifest.image_size}×{manifest.image_size}×{manifest.channels} pixels")
    left_out = sum(manifest.left_out.values())
    if left_out:
        plural = "s" * (left_out > 1)
        folder = part_folder(shard_dir, Part.parse(part)) if part else shard_dir
        typer.echo(f"left out {left_out} unreadable image{plural}: {folder / shard_writing.BAD_IMAGES_NAME}")
    if part:
        typer.echo(f"next: zoobot merge-shards --shard-dir {quoted} when all parts are written")
        return
    if (shard_dir / shard_writing.BAD_PIXELS_NAME).exists():
        typer.echo(f"images with bad pixels, which were filled: {shard_dir / shard_writing.BAD_PIXELS_NAME}")
    typer.echo(f"next: zoobot train --shard-dir {quoted} --save-dir MODEL")


def merge_shards(
    shard_dir: Annotated[Path, typer.Option(help="Folder that `zoobot create-shards --part i/n` wrote to.")],
) -> None:
    """Check that all parts of shards are there and whole, and make one folder of shards of them.

    Example:

        zoobot merge-shards --shard-dir /shared/shards
    """
    from zoobot.data import shard_merging

    _report(shard_dir, shard_merging.merge_shards(shard_dir), None)


def check_shards(
    path: Annotated[Path, typer.Argument(help="A folder of shards, or one TFRecord file.")],
) -> None:
    """Verify every checksum of shards and their indexes.

    Example:

        zoobot check-shards shards
    """
    from zoobot.data import shard_writing

    counts = shard_writing.check_shards(path)
    typer.echo(f"{path}: {sum(counts.values())} galaxies in {len(counts)} files, all whole")
