"""``zoobot calibrate``."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoobot.cli.fits_options import Bands, BandsLast, Hdu, KeepZeros, MaskHdu, StretchName, ZeroPoint, make_layout

if TYPE_CHECKING:
    from zoobot.predictions.calibrate import Calibrated
    from zoobot.stats.calibration import Calibration, Estimate

__all__ = ["calibrate"]


def calibrate(
    checkpoint_dir: Annotated[
        list[Path], typer.Option(help="Model folder that `zoobot train` made; given several times, of their mixture.")
    ],
    shard_dir: Annotated[Path | None, typer.Option(help="Folder of shards.")] = None,
    split: Annotated[str, typer.Option(help="Which of the shards; not those trained on.")] = "test",
    catalog: Annotated[
        Path | None, typer.Option(help="Table with id_str, file_loc and votes, instead of shards.")
    ] = None,
    image_root: Annotated[
        Path | None,
        typer.Option(help="Where the catalog's relative file_loc start.", show_default="the catalog's folder"),
    ] = None,
    save_loc: Annotated[
        Path | None, typer.Option(help="Where to write (.json), for several models.", show_default="the model folder")
    ] = None,
    n_samples: Annotated[int, typer.Option(help="Draws of dropout, as many as you will predict with.")] = 5,
    tta: Annotated[str, typer.Option(help="Views of each image, as you will predict with: none or dihedral.")] = "none",
    batch_size: Annotated[int, typer.Option(help="Galaxies at a time.")] = 64,
    workers: Annotated[int | None, typer.Option(help="Processes that decode.", show_default="by machine")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.", show_default="the best there is")] = None,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Make a model's error bars honest, on votes that it was not trained on.

    Writes calibration.json into the model folder; `zoobot predict` applies it from then on. Of several models it is one
    file for their mixture, which `zoobot predict --calibration` takes.

    Examples:

        zoobot calibrate --checkpoint-dir model --shard-dir shards

        zoobot calibrate --checkpoint-dir a --checkpoint-dir b --shard-dir shards --save-loc ab.calibration.json
    """
    from zoobot.data.stretch import parse_stretch
    from zoobot.predictions import calibrate as calibrating

    found = calibrating.calibrate(
        checkpoint_dir,
        shard_dir=shard_dir,
        split=split,
        catalog=catalog,
        image_root=image_root,
        layout=make_layout(hdu, bands, bands_last, mask_hdu, zero_point, keep_zeros),
        stretch=None if stretch is None else parse_stretch(stretch),
        save_loc=save_loc,
        n_samples=n_samples,
        tta=tta,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    _print_gains(found)
    applies = f"`zoobot predict --calibration {shlex.quote(str(save_loc))}` applies it, with the same --checkpoint-dir"
    if found.recalibration.changes_nothing:
        applies = "it changes nothing, as no correction lowers the loss of galaxies that it is not fitted to"
    elif save_loc is None:
        applies = "predict applies it from now on (--no-recalibrate does not)"
    typer.echo(f"{found.path}: {applies}")


def _print_gains(found: "Calibrated") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, title=f"{found.all_before.galaxies} galaxies: as they were, recalibrated below")
    table.add_column("question", no_wrap=True)
    for heading in ("galaxies", "loss", "in 80%", "in 90%", "calib. error", "width"):
        table.add_column(heading, justify="right")
    names = [*found.question_names, "all questions"]
    for name, before, after in zip(
        names, [*found.before, found.all_before], [*found.after, found.all_after], strict=True
    ):
        table.add_row(name, str(before.galaxies), *_cells(before), style="bright_black")
        table.add_row("", "", *_cells(after))
    console = Console()
    console.print(table)
    console.print("In 80%, 90%: votes inside the predicted intervals that should hold so many.")
    console.print("Loss, calibration error of leading answers: lower is better. Second lines:")
    console.print("fitted to one half of the galaxies, measured on the other.")


def _cells(measured: "Calibration") -> list[str]:
    return [
        _number(measured.loss, ".3f"),
        *(_number(each, ".1%") for each in measured.coverages),
        _number(measured.calibration_error, ".3f"),
        _number(measured.width, ".3f"),
    ]


def _number(estimate: "Estimate", form: str) -> str:
    return "–" if math.isnan(estimate.value) else format(estimate.value, form)
