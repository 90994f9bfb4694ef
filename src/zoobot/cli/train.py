"""``zoobot train``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["train"]

_OF_MODEL = ("encoder", "weights", "head", "crop_size", "resize_size", "move", "zoom", "dropout_rate", "drop_path_rate")
_OF_TRAINING = (
    *("epochs", "max_minutes", "patience", "batch_size", "learning_rate", "weight_decay", "ema_decay", "precision"),
    *("accelerator", "num_nodes", "strategy", "accumulate", "compile", "workers", "seed", "resume", "overwrite"),
)


def train(
    context: typer.Context,
    shard_dir: Annotated[str, typer.Option(help="Folder that `zoobot create-shards` made, or its URL (s3://…).")],
    save_dir: Annotated[Path, typer.Option(help="Folder for the model, its history and its state to resume from.")],
    preset: Annotated[
        str | None,
        typer.Option(help="A recipe: fast, balanced or best. Other options, where given, go before it."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Most passes over the galaxies.", show_default="50; as many as fit with --max-minutes"),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="Stop after this time; the learning rate falls to fit it."),
    ] = None,
    patience: Annotated[int, typer.Option(help="Stop after this many epochs without a better test loss.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Galaxies a batch, on each device.")] = 64,
    encoder: Annotated[
        str | None,
        typer.Option(help="A timm model.", show_default="that of the weights, or efficientnet_b0"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Start from imagenet-lite0, timm, timm:NAME, hf_hub:OWNER/NAME, a model folder or a checkpoint file.",
            show_default="from scratch",
        ),
    ] = None,
    head: Annotated[
        str,
        typer.Option(help="Bounds of the concentrations: dirichlet (1 to 101, as published) or wide (0.01 to 100)."),
    ] = "dirichlet",
    crop_size: Annotated[
        int | None,
        typer.Option(help="Side of what is cropped from the images.", show_default="0.75 of the image size"),
    ] = None,
    resize_size: Annotated[
        int | None,
        typer.Option(help="Side of what the encoder sees.", show_default="the crop size"),
    ] = None,
    move: Annotated[float, typer.Option(help="Crop off the centre, by up to this share of the room there is.")] = 1.0,
    zoom: Annotated[tuple[float, float], typer.Option(help="Magnify by between these.")] = (1.0, 1.0),
    dropout_rate: Annotated[float, typer.Option(help="Dropout before the last layer.")] = 0.2,
    drop_path_rate: Annotated[float, typer.Option(help="How often the last block is skipped, such as 0.1.")] = 0.0,
    learning_rate: Annotated[float, typer.Option(help="At its height.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.05,
    ema_decay: Annotated[
        float | None,
        typer.Option(help="Test and save a running mean of the weights, such as 0.999.", show_default="off"),
    ] = None,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, 16-mixed or auto.")] = "auto",
    accelerator: Annotated[str, typer.Option(help="cpu, gpu, mps or auto.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many in each machine, or auto.")] = "auto",
    num_nodes: Annotated[int, typer.Option(help="Machines that train together; started by srun or torchrun.")] = 1,
    strategy: Annotated[
        str,
        typer.Option(help="ddp, or ddp_find_unused_parameters_true for encoders with parts that some steps leave out."),
    ] = "auto",
    accumulate: Annotated[int, typer.Option(help="Batches that each step of the optimiser takes in.")] = 1,
    compile: Annotated[bool, typer.Option(help="Compile the encoder: minutes at first, then faster steps.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that read ahead.", show_default="by machine")] = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --save-dir.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in --save-dir.")] = False,
) -> None:
    """Train a model on shards; schema, image size and channels come from the shards.

    Ctrl-C ends the run early and keeps the best model; --resume goes on after an interruption.

    Examples:

        zoobot train --shard-dir shards --save-dir model --preset best

        zoobot train --shard-dir shards --save-dir model --epochs 50 --patience 10

        zoobot train --shard-dir shards --save-dir model --encoder resnet18 --resize-size 96 --max-minutes 15

        zoobot train --shard-dir shards --save-dir model --weights imagenet-lite0 --resize-size 128 --max-minutes 60

        zoobot train --shard-dir shards --save-dir model --devices 4 --accumulate 2 --resume
    """
    import torch

    from zoobot.data import shards
    from zoobot.data.manifest import Manifest
    from zoobot.estimators import define_model
    from zoobot.training import training_config
    from zoobot.training.devices import rank_zero_only

    say = rank_zero_only(typer.echo)  # with several devices there is a process for each
    train_dataset, test_dataset = shards.load_datasets(shard_dir)
    image_size, _, channels = train_dataset.image_shape
    options = _apply_preset(context, preset, image_size)
    config = training_config.TrainConfig(
        log_dir=save_dir,
        devices=int(devices) if devices.isascii() and devices.isdigit() else devices,
        **{name: options[name] for name in _OF_TRAINING},
    )
    torch.manual_seed(seed)  # the initial weights
    manifest = Manifest.load(shard_dir)
    model = define_model.get_model(
        schema=manifest.schema,
        input_size=image_size,
        channels=channels,
        fit=manifest.settings.get("fit", "crop"),
        fits=manifest.settings.get("fits"),
        **{name: options[name] for name in _OF_MODEL},
    )
    if model.config.weights and model.config.weights["lacking"]:
        source, lacking = options["weights"], ", ".join(model.config.weights["lacking"])
        say(f"weights: {source} lacks some of {model.config.encoder}, which start fresh: {lacking}", err=True)
    if train_dataset.image_dtype.is_floating_point:
        say("the shards hold fluxes without a stretch: the standard preprocessing takes them as they are", err=True)
    training_config.train_estimator(model, config, train_dataset, test_dataset)
    say(f"{save_dir}: the best model, history.csv and learning_curve.png")
    views = " --tta dihedral" if preset else ""
    folder = shlex.quote(str(save_dir))
    say(f"next: zoobot predict --checkpoint-dir {folder} --folder IMAGES{views} --save-loc predictions.parquet")


def _apply_preset(context: typer.Context, preset: str | None, image_size: int) -> dict[str, Any]:
    """The options, those of the preset where none were given."""
    from zoobot.training.presets import choose_preset

    options = dict(context.params)
    if preset is not None:
        for name, value in choose_preset(preset).settings(image_size).items():
            source = context.get_parameter_source(name)
            if source is not None and source.name.startswith("DEFAULT"):
                options[name] = value
    return options
