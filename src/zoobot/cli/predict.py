"""``zoobot predict``."""

from pathlib import Path
from typing import Annotated

import typer

from zoobot.cli.fits_options import Bands, BandsLast, Hdu, KeepZeros, MaskHdu, StretchName, ZeroPoint, make_layout

__all__ = ["predict"]


def predict(
    checkpoint_dir: Annotated[
        list[Path], typer.Option(help="Model folder that `zoobot train` made; given several times, they are mixed.")
    ],
    save_loc: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .fits.")],
    folder: Annotated[Path | None, typer.Option(help="Folder of images.")] = None,
    file_format: Annotated[str, typer.Option(help="Which images of the folder: png, jpg or fits.")] = "png",
    recursive: Annotated[bool, typer.Option("--recursive", help="Look in the folder's folders too.")] = False,
    catalog: Annotated[Path | None, typer.Option(help="Table with id_str and file_loc, instead of a folder.")] = None,
    image_root: Annotated[
        Path | None,
        typer.Option(help="Where the catalog's relative file_loc start.", show_default="the catalog's folder"),
    ] = None,
    shard_dir: Annotated[Path | None, typer.Option(help="Folder of shards, instead of a folder of images.")] = None,
    split: Annotated[str, typer.Option(help="Which of the shards: train, test or unlabelled.")] = "test",
    n_samples: Annotated[int, typer.Option(help="Draws of dropout; 1 switches dropout off.")] = 5,
    tta: Annotated[str, typer.Option(help="Views of each image: none, or dihedral (8 turns and mirrors).")] = "none",
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate/--no-recalibrate", help="Apply what `zoobot calibrate` found.")
    ] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(help="What `zoobot calibrate --save-loc` wrote.", show_default="that in the folder of one model"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Galaxies at a time.")] = 64,
    workers: Annotated[int | None, typer.Option(help="Processes that decode.", show_default="by machine")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.", show_default="the best there is")] = None,
    concentrations: Annotated[
        bool,
        typer.Option("--concentrations/--no-concentrations", help="Write them too; evaluate wants them."),
    ] = True,
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw", help="Write the concentrations from before the recalibration too.")
    ] = False,
    intervals: Annotated[str, typer.Option(help="Of fractions: equal-tailed, or shortest.")] = "equal-tailed",
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write more: which answer leads, shares of all volunteers, entropies.")
    ] = False,
    friendly_loc: Annotated[
        Path | None, typer.Option(help="Second table, of leading answers, blank where a question is unlikely asked.")
    ] = None,
    asked_threshold: Annotated[float, typer.Option(help="Least share of volunteers asked, for --friendly-loc.")] = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --save-loc.")] = False,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Predict how volunteers would vote, with 90% credible intervals.

    Images that cannot be read are listed in a second table, NAME.failed.csv.

    Examples:

        zoobot predict --checkpoint-dir model --folder images --file-format png --save-loc predictions.parquet

        zoobot predict --checkpoint-dir model --catalog new_galaxies.csv --save-loc predictions.fits

        zoobot predict --checkpoint-dir model --folder cubes --file-format fits --stretch decals --save-loc p.parquet

        zoobot predict --checkpoint-dir model1 --checkpoint-dir model2 --tta dihedral --folder images --save-loc p.csv

        zoobot predict --checkpoint-dir a --checkpoint-dir b --calibration ab.json --folder images --save-loc p.csv

        zoobot predict --checkpoint-dir model --shard-dir shards --save-loc predictions.csv --n-samples 10
    """
    from zoobot.data.stretch import parse_stretch
    from zoobot.predictions import predict_on_images

    done = predict_on_images.predict(
        checkpoint_dir=checkpoint_dir,
        save_loc=save_loc,
        folder_to_predict=folder,
        file_format=file_format,
        recursive=recursive,
        catalog=catalog,
        image_root=image_root,
        shard_dir=shard_dir,
        split=split,
        n_samples=n_samples,
        tta=tta,
        recalibrate=recalibrate,
        calibration=calibration,
        batch_size=batch_size,
        workers=workers,
        device=device,
        keep_concentrations=concentrations,
        keep_raw=keep_raw,
        intervals=intervals,
        uncertainty=uncertainty,
        friendly_loc=friendly_loc,
        asked_threshold=asked_threshold,
        overwrite=overwrite,
        layout=make_layout(hdu, bands, bands_last, mask_hdu, zero_point, keep_zeros),
        stretch=None if stretch is None else parse_stretch(stretch),
    )
    typer.echo(f"{done.save_loc}: {done.galaxies} of {done.galaxies + done.failed} galaxies")
    if done.filled:
        typer.echo(
            f"{done.filled} image{'s' * (done.filled > 1)} had bad pixels, which were filled: see the column bad_pixels"
        )
    if done.failed:
        typer.echo(
            f"{done.failed_loc}: {done.failed} image{'s' * (done.failed > 1)} that could not be read, with the reason"
        )
