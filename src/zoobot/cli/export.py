"""``zoobot export``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    checkpoint_dir: Annotated[Path, typer.Option(help="Model folder that `zoobot train` or `finetune` made.")],
    save_loc: Annotated[Path, typer.Option(help="File to write (.onnx), or for the hub a folder.")],
    format: Annotated[str, typer.Option(help="onnx, or hub (a folder for the Hugging Face hub).")],
    license: Annotated[str, typer.Option(help="For the hub, as it names licences: bsd-3-clause, say.")] = "unknown",
    metrics: Annotated[Path | None, typer.Option(help="For the hub's page: what `zoobot evaluate` wrote.")] = None,
) -> None:
    """Pass a model on: as ONNX for other programs, or as a folder for the Hugging Face hub.

    An ONNX file takes uint8 images, any number at a time, and gives concentrations; or, of finetuned models,
    probabilities or numbers. It is compared with torch first, and is not written if it differs.

    Examples:

        zoobot export --checkpoint-dir model --format onnx --save-loc model.onnx

        zoobot export --checkpoint-dir model --format hub --save-loc to_upload --license bsd-3-clause --metrics m.json
    """
    from zoobot.errors import SettingError
    from zoobot.estimators.hub_folder import export_hub
    from zoobot.estimators.onnx_export import export_onnx

    if format == "onnx":
        if metrics is not None or license != "unknown":
            raise SettingError("--license and --metrics are for --format hub; leave them out")
        done = export_onnx(checkpoint_dir, save_loc)
        of_what = {"concentrations": "fractions", "numbers": "numbers, in standard deviations"}
        typer.echo(
            f"{done.path}: gives {done.output}, and differs from torch by at most {done.difference:.1e} in "
            f"{of_what.get(done.output, done.output)}, on {done.images} images"
        )
        if done.output == "concentrations":
            typer.echo("They are of the whole network, before any recalibration.")
    elif format == "hub":
        folder = export_hub(checkpoint_dir, save_loc, license_id=license, metrics=metrics)
        typer.echo(f"{folder}: upload it with `hf upload OWNER/NAME {folder}`")
        if license == "unknown":
            typer.echo("Decide on a licence first: --license, or the first lines of its README.md.")
    else:
        raise SettingError(f"format: got {format!r}, expected onnx or hub")
