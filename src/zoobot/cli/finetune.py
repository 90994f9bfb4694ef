"""``zoobot finetune`` and ``zoobot cross-validate``, which judges the same training."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
    from zoobot.training.finetune import FinetuneConfig
    from zoobot.training.labels import Labels

__all__ = ["cross_validate", "finetune"]

_MOST_DIGITS = 9  # of a number

Catalog = Annotated[Path, typer.Option(help="Table with id_str, file_loc and labels.")]
SaveDir = Annotated[Path, typer.Option(help="Folder to make.")]
Targets = Annotated[
    str | None, typer.Option("--target", help="Column of classes, or columns of numbers: ring, or mass,size.")
]
SchemaName = Annotated[str | None, typer.Option(help="Decision tree, instead, whose votes the catalog has.")]
Task = Annotated[
    str | None,
    typer.Option(help="classification, regression or votes.", show_default="by the labels"),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Start from a model folder, imagenet-lite0, timm:NAME, hf_hub:OWNER/NAME or a checkpoint file.",
        show_default="from scratch",
    ),
]
Layers = Annotated[str, typer.Option(help="What learns: head (quick), a number of the encoder's last layers, or all.")]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Where relative file_loc start.", show_default="the catalog's folder")
]
Encoder = Annotated[
    str | None, typer.Option(help="A timm model.", show_default="that of the weights, or efficientnet_b0")
]
ImageSize = Annotated[
    int | None, typer.Option(help="Side that images are resized to.", show_default="the model folder's, or 212")
]
CropSize = Annotated[
    int | None,
    typer.Option(help="Side of what is cropped from them.", show_default="the model folder's, or 0.75 of it"),
]
ResizeSize = Annotated[
    int | None, typer.Option(help="Side of what the encoder sees.", show_default="the model folder's, or the crop's")
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Most passes over the galaxies.", show_default="as many as show 5000 images, from 8 to 40"),
]
Patience = Annotated[
    int | None,
    typer.Option(help="Stop after this many epochs without a better loss.", show_default="a third of the epochs"),
]
BatchSize = Annotated[int, typer.Option(help="Galaxies a step.")]
LearningRate = Annotated[float, typer.Option(help="At its height.")]
LayerDecay = Annotated[
    float | None,
    typer.Option(help="Each layer learns this much slower than the next.", show_default="0.8; 1 from scratch"),
]
WeightDecay = Annotated[float, typer.Option(help="Of AdamW.")]
FreezeBatchNorm = Annotated[
    bool | None,
    typer.Option(
        "--freeze-batch-norm/--no-freeze-batch-norm",
        help="Keep the running statistics of batch normalisation.",
        show_default="with --weights",
    ),
]
DropoutRate = Annotated[float, typer.Option(help="Dropout before the last layer.")]
Balance = Annotated[bool, typer.Option("--balance", help="Let all classes count alike, however rare.")]
LabelSmoothing = Annotated[float, typer.Option(help="Of classes, such as 0.1.")]
Precision = Annotated[str, typer.Option(help="32-true, bf16-mixed, 16-mixed or auto.")]
Accelerator = Annotated[str, typer.Option(help="cpu, gpu, mps or auto.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]


def finetune(
    catalog: Catalog,
    save_dir: SaveDir,
    target: Targets = None,
    schema: SchemaName = None,
    task: Task = None,
    weights: Weights = None,
    layers: Layers = "all",
    image_root: ImageRoot = None,
    encoder: Encoder = None,
    image_size: ImageSize = None,
    crop_size: CropSize = None,
    resize_size: ResizeSize = None,
    epochs: Epochs = None,
    patience: Patience = None,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 3e-4,
    layer_decay: LayerDecay = None,
    weight_decay: WeightDecay = 0.05,
    freeze_batch_norm: FreezeBatchNorm = None,
    dropout_rate: DropoutRate = 0.2,
    balance: Balance = False,
    label_smoothing: LabelSmoothing = 0.0,
    precision: Precision = "auto",
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in --save-dir.")] = False,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Teach a pretrained model a few hundred labels of your own: classes, numbers, or votes of another decision tree.

    A fifth of the galaxies is held back, to stop by and to judge by.

    Examples:

        zoobot finetune --catalog rings.csv --target ring --weights model --save-dir ring_model

        zoobot finetune --catalog rings.csv --target ring --weights model --layers head --save-dir ring_model

        zoobot finetune --catalog bulges.csv --target bulge_to_total --weights imagenet-lite0 --save-dir bulge_model

        zoobot finetune --catalog votes.csv --schema my_tree.toml --weights model --layers 4 --save-dir my_model
    """
    from zoobot.training import finetune as finetuning

    config = _make_config(locals())
    done = finetuning.finetune(config, save_dir, overwrite=overwrite)
    _show_unlabelled(done.labels.unlabelled)
    typer.echo(f"{save_dir}: learnt {done.labels.task} of {_name_labels(done.labels)}")
    typer.echo(f"from {done.trained} galaxies; scores of the {done.held_back} that were held back:")
    table = Table()
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in done.scores.items():
        table.add_row(name, f"{value:.3f}")
    Console().print(table)
    options = f"--checkpoint-dir {shlex.quote(str(save_dir))} --folder IMAGES"
    # in the eight views in which they were scored
    typer.echo(f"next: zoobot predict {options} --tta dihedral --save-loc predictions.csv")


def cross_validate(
    catalog: Catalog,
    save_dir: SaveDir,
    folds: Annotated[
        int, typer.Option(help="Parts, each of which is judged by a model that learnt from the others.")
    ] = 5,
    label_counts: Annotated[
        str | None, typer.Option(help="Learn from so many labels too: 25,50,100 gives a learning curve.")
    ] = None,
    target: Targets = None,
    schema: SchemaName = None,
    task: Task = None,
    weights: Weights = None,
    layers: Layers = "all",
    image_root: ImageRoot = None,
    encoder: Encoder = None,
    image_size: ImageSize = None,
    crop_size: CropSize = None,
    resize_size: ResizeSize = None,
    epochs: Epochs = None,
    patience: Patience = None,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 3e-4,
    layer_decay: LayerDecay = None,
    weight_decay: WeightDecay = 0.05,
    freeze_batch_norm: FreezeBatchNorm = None,
    dropout_rate: DropoutRate = 0.2,
    balance: Balance = False,
    label_smoothing: LabelSmoothing = 0.0,
    precision: Precision = "auto",
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --save-dir holds.")] = False,
    stretch: StretchName = None,
    hdu: Hdu = None,
    bands: Bands = None,
    bands_last: BandsLast = None,
    mask_hdu: MaskHdu = None,
    zero_point: ZeroPoint = None,
    keep_zeros: KeepZeros = None,
) -> None:
    """Find out how good `zoobot finetune` with the same options is, and whether more labels would help.

    Writes scores.csv, predictions.csv (of models that had not seen the galaxy) and scores.png to --save-dir.

    Examples:

        zoobot cross-validate --catalog rings.csv --target ring --weights model --save-dir judged

        zoobot cross-validate --catalog rings.csv --target ring --weights model --label-counts 25,50 --save-dir curve
    """
    from zoobot.training import cross_validation

    config = _make_config(locals())
    counts = [] if label_counts is None else [_parse_count(part) for part in label_counts.split(",")]
    found = cross_validation.cross_validate(config, save_dir, folds=folds, label_counts=counts, overwrite=overwrite)
    _show_unlabelled(found.unlabelled)
    summary = found.summary()
    table = Table(title=f"{folds} folds: mean ± its standard error", title_justify="left")
    names = [name for name in summary.columns if name != "labels" and not name.endswith("_error")]
    for name in ("labels", *names):
        table.add_column(name, justify="right")
    for row in summary.to_dict("records"):
        table.add_row(f"{row['labels']:.0f}", *(f"{row[name]:.3f} ± {row[f'{name}_error']:.3f}" for name in names))
    Console().print(table)
    typer.echo(f"{save_dir}: scores.csv, predictions.csv and scores.png")


def _make_config(options: Mapping[str, Any]) -> "FinetuneConfig":
    """Put the options that both commands have into one config."""
    from zoobot import schemas
    from zoobot.training.finetune import FinetuneConfig, find_fits

    layout = make_layout(
        *(options[name] for name in ("hdu", "bands", "bands_last", "mask_hdu", "zero_point", "keep_zeros"))
    )
    same = (
        *("catalog", "weights", "task", "image_root", "encoder", "image_size", "crop_size", "resize_size"),
        *("epochs", "patience", "batch_size", "learning_rate", "layer_decay", "weight_decay", "freeze_batch_norm"),
        *("dropout_rate", "balance", "label_smoothing", "precision", "accelerator", "seed"),
    )
    target, schema = options["target"], options["schema"]
    return FinetuneConfig(
        **{name: options[name] for name in same},
        targets=() if target is None else tuple(name.strip() for name in target.split(",")),
        schema=None if schema is None else schemas.load(schema),
        layers=_parse_layers(options["layers"]),
        fits=make_config(options["stretch"], layout, find_fits(options["weights"])),
    )


def _parse_layers(text: str) -> int | None:
    if text in ("head", "all"):
        return 0 if text == "head" else None
    return _parse_count(text, "--layers", "head, all, or a number of layers, such as 4")


def _parse_count(
    text: str, option: str = "--label-counts", expected: str = "numbers with commas, such as 25,50"
) -> int:
    from zoobot.errors import SettingError

    if not (text.strip().isascii() and text.strip().isdigit() and len(text) <= _MOST_DIGITS):
        raise SettingError(f"{option}: got {text[:40]!r}, expected {expected}")
    return int(text)


def _name_labels(labels: "Labels") -> str:
    """What was learnt, for people: the target with its classes, the numbers, or the answers; the first of them."""
    names, start = labels.label_cols, ""
    if labels.task == "classification" and labels.schema is not None:
        (question,) = labels.schema.questions
        names, start = [answer.text for answer in question.answers], f"{question.name}: "
    return f"{start}{', '.join(names[:6])}{', …' if len(names) > 6 else ''}"


def _show_unlabelled(unlabelled: int) -> None:
    if unlabelled:
        typer.echo(f"{unlabelled} galaxies of the catalog have no label; they were left out", err=True)
