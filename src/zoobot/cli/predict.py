"""``zoobot predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoobot.cli.fits_options import Bands, BandsLast, Hdu, KeepZeros, MaskHdu, StretchName, ZeroPoint, make_layout

if TYPE_CHECKING:
    from zoobot.predictions.predict_on_images import Predicted

__all__ = ["predict", "print_predicted"]


def predict(
    checkpoint_dir: Annotated[
        list[Path], typer.Option(help="Model folder of `zoobot train` or `finetune`; several are mixed.")
    ],
    save_loc: Annotated[
        Path, typer.Option(help="Table to write: .parquet, .csv or .fits; or a folder, without suffix, for parts.")
    ],
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
    n_samples: Annotated[
        int | None,
        typer.Option(help="Draws of dropout; 1 switches dropout off.", show_default="5; 1 for classes and numbers"),
    ] = None,
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
    runtime: Annotated[str, typer.Option(help="What computes on a CPU: torch, or onnx or openvino, faster.")] = "torch",
    devices: Annotated[int, typer.Option(help="GPUs to use, a process for each; on a CPU just processes.")] = 1,
    galaxies_per_part: Annotated[int, typer.Option(help="Galaxies written together: what a kill may cost.")] = 8192,
    engine: Annotated[str, typer.Option(help="Who does the work: local, or ray, a cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, host:6379.", show_default="RAY_ADDRESS, or one on this machine")
    ] = None,
    cores_per_worker: Annotated[
        int | None, typer.Option(help="Cores of each worker of Ray.", show_default="1, or 4 with a GPU")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Share of the folder's parts to predict, i/n: 2/8 is the second of eight.")
    ] = None,
    log_json: Annotated[Path | None, typer.Option(help="Add a line of JSON to this file for each part.")] = None,
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
        Path | None,
        typer.Option(help="Second table, of leading answers, blank where a question is unlikely to be asked."),
    ] = None,
    asked_threshold: Annotated[float, typer.Option(help="Least share of volunteers asked, for --friendly-loc.")] = 0.5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --save-loc; a folder is gone on with otherwise.")
    ] = False,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Predict how volunteers would vote, with 90% credible intervals.

    A model of zoobot finetune predicts what it was taught: classes with their probabilities, numbers, or votes.
    Images that cannot be read are listed in a second table, NAME.failed.csv. After an interruption the same command
    goes on where it was.

    Examples:

        zoobot predict --checkpoint-dir model --folder images --save-loc predictions.parquet

        zoobot predict --checkpoint-dir model --catalog new_galaxies.csv --save-loc predictions.fits

        zoobot predict --checkpoint-dir model --folder cubes --stretch decals --save-loc p.parquet

        zoobot predict --checkpoint-dir model1 --checkpoint-dir model2 --tta dihedral --folder images --save-loc p.csv

        zoobot predict --checkpoint-dir a --checkpoint-dir b --calibration ab.json --folder images --save-loc p.csv

        zoobot predict --checkpoint-dir model --shard-dir shards --save-loc predictions.csv --n-samples 10

        zoobot predict --checkpoint-dir model --catalog all.parquet --save-loc predictions --part 2/8

        zoobot predict --checkpoint-dir model --catalog all.csv --save-loc p.parquet --engine ray --address host:6379
    """
    from zoobot.data.stretch import parse_stretch
    from zoobot.predictions import predict_on_images

    config = predict_on_images.PredictConfig(
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
        runtime=runtime,
        devices=devices,
        galaxies_per_part=galaxies_per_part,
        engine=engine,
        address=address,
        cores_per_worker=cores_per_worker,
        part=part,
        log_json=log_json,
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
    try:
        done = predict_on_images.predict(config)
    except predict_on_images.PartsFailedError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    print_predicted(done)


def print_predicted(done: "Predicted") -> None:
    """Say what was predicted."""
    typer.echo(f"{done.save_loc}: {done.galaxies} of {done.galaxies + done.failed} galaxies")
    if done.missing:
        typer.echo(f"{done.missing} parts are still missing, which other processes may be about to make")
    if done.filled:
        typer.echo(
            f"{done.filled} image{'s' * (done.filled > 1)} had bad pixels, which were filled: see the column bad_pixels"
        )
    if done.failed:
        where = done.failed_loc or "part-*.failed.csv in it"
        typer.echo(f"{where}: {done.failed} image{'s' * (done.failed > 1)} that could not be read, with the reason")
