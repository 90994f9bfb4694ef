"""Training a model on shards: the settings, and the run itself, on Lightning."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from zoobot.data.datasets import GalaxyDataset, describe_dataset
from zoobot.errors import SettingError, TrainingError
from zoobot.estimators.checkpoint import CALIBRATION_NAME, load_config, load_model, update_metadata
from zoobot.estimators.define_model import Model
from zoobot.files import delete_leftovers
from zoobot.processes import count_cores
from zoobot.training import losses
from zoobot.training.callbacks import LAST_NAME, KeepBest, SaveLast, ShowProgress, StopOnInterrupt, StopOnTime
from zoobot.training.devices import STRATEGIES, explain_lost_process, make_trainer, quiet_lightning
from zoobot.training.estimator_module import EstimatorModule, GalaxyData, MultiquestionLossFunction
from zoobot.training.history import HISTORY_NAME, save_learning_curve

__all__ = ["TrainConfig", "clear_folder", "train_estimator"]

_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
# settings that may change when a run goes on
_FREE_SETTINGS = {
    "log_dir",
    "epochs",
    "patience",
    "max_minutes",
    "workers",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "accumulate",
    "compile",
    "resume",
    "overwrite",
    "show_progress",
}


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        log_dir: the folder to make: the model, the state to resume from, the history.
        epochs: passes over the training galaxies; as many as fit when left out together with ``max_minutes``, else 50.
        patience: stop after this many epochs without a better test loss.
        batch_size: galaxies a batch, on each device.
        learning_rate: of AdamW at its height; it warms up for a twentieth of the run, then falls to zero like a cosine.
        weight_decay: of AdamW, on everything but biases and normalisation.
        layers: how many of the encoder's last layers learn besides the head, as timm counts them; all when left out.
        layer_decay: each layer learns this much slower than the one after it; 1 for all alike.
        freeze_batch_norm: keep the running statistics of batch normalisation as they are, as small data asks for.
        ema_decay: keep, test and save a running mean of the weights with this memory (0.999, say); off when left out.
        max_minutes: stop after this time; the learning rate falls so as to reach zero then.
        precision: ``32-true``, ``bf16-mixed``, ``16-mixed``; ``auto`` is bf16-mixed on a GPU that computes in it, or a
            CPU (with AMX) unless the encoder has depthwise convolutions, as EfficientNets have.
        accelerator: ``auto``, ``cpu``, ``gpu``, ``mps``, …, as Lightning calls them.
        devices: how many of them in each machine, or ``auto``.
        num_nodes: how many machines.
        strategy: ``ddp`` or, for encoders of which a step may leave parts unused, ``ddp_find_unused_parameters_true``;
            ``auto`` is ``ddp`` where there are several devices.
        accumulate: how many batches each step of the optimiser takes in: a larger batch than memory holds.
        compile: compile the encoder with ``torch.compile``: minutes at first, then faster steps.
        workers: processes that read ahead; chosen by the machine when left out.
        seed: what decides the order of galaxies, augmentation and dropout.
        resume: go on with an interrupted run in ``log_dir``, if there is one.
        overwrite: begin anew where ``log_dir`` holds a model already.
        show_progress: say how it goes.

    Raises:
        SettingError: a value is outside what it may be.
    """

    log_dir: str | Path
    epochs: int | None = None
    patience: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    layers: int | None = None
    layer_decay: float = 1.0
    freeze_batch_norm: bool = False
    ema_decay: float | None = None
    max_minutes: float | None = None
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    accumulate: int = 1
    compile: bool = False
    workers: int | None = None
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    show_progress: bool = True

    def __post_init__(self) -> None:
        """Check the values and fill in those that depend on others."""
        for name in ("epochs", "patience", "batch_size", "learning_rate", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise SettingError(f"{name} is {value}; it must be above 0")
        if not 2 <= self.batch_size <= 100_000:
            raise SettingError(
                f"batch_size is {self.batch_size}; it must be from 2 (for batch normalisation) to 100000"
            )
        if not 0 <= self.seed < 2**63:
            raise SettingError(f"seed is {self.seed}; it must be from 0 to 2⁶³ − 1")
        if not 0 <= self.weight_decay < math.inf:
            raise SettingError(f"weight_decay is {self.weight_decay}; it must be a number from 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise SettingError(f"ema_decay is {self.ema_decay}; it must be between 0 and 1, such as 0.999")
        if self.layers is not None and self.layers < 0:
            raise SettingError(f"layers is {self.layers}; it must be from 0 (the head alone), or left out for all")
        if not 0 < self.layer_decay <= 1:
            raise SettingError(f"layer_decay is {self.layer_decay}; it must be above 0 and at most 1, such as 0.8")
        if self.workers is not None and self.workers < 0:
            raise SettingError(f"workers is {self.workers}; it must be 0 or more")
        for name in ("num_nodes", "accumulate"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name, known in (("precision", _PRECISIONS), ("strategy", STRATEGIES)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if self.resume and self.overwrite:
            raise SettingError("resume and overwrite exclude each other; choose one")
        if self.epochs is None and self.max_minutes is None:
            object.__setattr__(self, "epochs", 50)
        if self.workers is None:
            # on a CPU the gather from the memory map costs less than handing batches between processes
            object.__setattr__(self, "workers", min(8, count_cores()) if torch.cuda.is_available() else 0)


def train_estimator(
    model: Model,
    config: TrainConfig,
    train_dataset: GalaxyDataset,
    test_dataset: GalaxyDataset,
    *,
    loss: MultiquestionLossFunction | None = None,
) -> Model:
    """Train a model; its best weights are returned, and saved in ``config.log_dir`` as a model folder.

    An interrupted run, called again with ``resume``, goes on after its last whole epoch and ends as an unbroken one.
    With several devices every process calls this, and each gets the best model.

    Args:
        model: from :func:`zoobot.estimators.define_model.get_model`; it is trained in place.
        config: how.
        train_dataset: galaxies to learn from.
        test_dataset: galaxies whose loss decides which weights are best and when to stop.
        loss: ``(votes, concentrations) -> (galaxies, questions)``, each (galaxies, answers); that of
            :func:`zoobot.training.losses.get_multiquestion_loss` for the model's schema when left out.

    Raises:
        TrainingError: the datasets do not fit the model, the folder is taken, the loss becomes NaN or infinite, or
            another process of the run is lost.
    """
    folder = Path(config.log_dir)
    _check_fit(model, train_dataset, test_dataset)
    loss = loss or _default_loss(model)
    settings = {name: value for name, value in asdict(config).items() if name not in ("resume", "overwrite", "log_dir")}
    metadata = {
        "training": settings,
        "data": {"train": describe_dataset(train_dataset), "test": describe_dataset(test_dataset)},
    }
    keeper = KeepBest(folder, config.patience, model.schema.question_names if model.schema else [], metadata)
    stopper = StopOnInterrupt()
    shown = [ShowProgress(keeper, config.epochs, len(train_dataset))] if config.show_progress else []
    trainer = make_trainer(config, model, [*_choose_callbacks(config, keeper), stopper, *shown])
    processes = trainer.num_devices * trainer.num_nodes
    say = rank_zero_only(Console(stderr=True, soft_wrap=True).print)  # paths stay whole
    if not config.resume:
        clear_folder(folder, overwrite=config.overwrite)
    elif _check_run(folder, model, metadata):
        say(f"the run in {folder} has come to its end; there is nothing to go on with")
        return _load_best(model, folder)
    delete_leftovers(folder)
    last = _find_last(folder)
    if config.resume:
        state = "goes on after its last whole epoch" if last else "begins: there is no run to go on with yet"
        say(f"the run in {folder} {state}")
    data = GalaxyData(train_dataset, test_dataset, config, processes)
    module = EstimatorModule(model.train(), loss, config)
    with quiet_lightning(), explain_lost_process(processes), _compiled(model, config), stopper, torch.random.fork_rng():
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
        except SystemExit as stop:  # Lightning's answer to a second Ctrl-C
            raise KeyboardInterrupt from stop
    if not (folder / "config.json").exists():
        raise TrainingError(f"training stopped before the first test; {folder} holds no model")
    if trainer.is_global_zero:
        update_metadata(folder, {"finished": not stopper.asked})
        save_learning_curve(folder)
    return _load_best(model, folder)


def _check_fit(model: Model, *datasets: GalaxyDataset) -> None:
    expected = (model.config.input_size, model.config.input_size, model.config.channels)
    for name, dataset in zip(("train_dataset", "test_dataset"), datasets, strict=True):
        if len(dataset) < (2 if name == "train_dataset" else 1):
            raise TrainingError(f"{name} has {len(dataset)} galaxies; training needs two, and one to test by")
        if model.head.task == "votes" and not np.asarray(dataset.votes).any():
            raise TrainingError(f"{name} has no votes at all: there is nothing to learn")
        if dataset.image_shape != expected:
            raise TrainingError(
                f"{name} has images of {'×'.join(map(str, dataset.image_shape))}, the model takes "
                f"{'×'.join(map(str, expected))}; get_model(input_size={dataset.image_shape[0]}, "
                f"channels={dataset.image_shape[2]}, ...) fits"
            )
        if model.schema is not None and dataset.label_cols != model.schema.label_cols:
            raise TrainingError(f"{name} holds votes of other answers than the model's schema {model.schema.name}")
        if len(dataset.label_cols) != model.config.output_dim:
            raise TrainingError(
                f"{name} has {len(dataset.label_cols)} columns of votes, the model {model.config.output_dim} outputs"
            )


def clear_folder(folder: Path, *, overwrite: bool) -> None:
    """Delete what a run leaves in a folder, if that is wanted.

    Raises:
        TrainingError: it holds a model or a run, and is not to be overwritten.
    """
    ours = [folder / name for name in ("config.json", "model.safetensors", CALIBRATION_NAME, LAST_NAME, HISTORY_NAME)]
    if not any(path.exists() for path in ours):
        return
    if not overwrite:
        raise TrainingError(
            f"{folder} holds a model or a run already; replace it with --overwrite, choose another folder, or go on "
            "with a run of `zoobot train` with --resume"
        )
    for path in [*ours, *folder.glob("tensorboard/events.out.*")]:
        path.unlink(missing_ok=True)


def _default_loss(model: Model) -> MultiquestionLossFunction:
    if model.head.task != "votes":
        raise TrainingError(
            f"the head is for {model.head.task}, and the loss of votes is not: give loss=..., or use zoobot finetune"
        )
    if model.schema is None:
        raise TrainingError(
            "the model has no schema, so its questions are unknown; give loss=losses.get_multiquestion_loss(groups), "
            "or make the model with get_model(schema=...)"
        )
    return losses.get_multiquestion_loss(model.schema.question_index_groups)


def _check_run(folder: Path, model: Model, metadata: dict[str, Any]) -> bool:
    """Check that the folder holds this very run, or none; true if the run came to its end.

    Raises:
        TrainingError: it holds another one.
    """
    if not (folder / "config.json").exists():
        return False
    found = load_config(folder)
    known = found["metadata"]
    parts = ("training", "data", "metrics")
    if not isinstance(known, dict) or ("training" in known and not all(isinstance(known.get(p), dict) for p in parts)):
        raise TrainingError(
            f"{folder}: the metadata in config.json are not those of a run; begin anew with --overwrite"
        )
    wanted = json.loads(json.dumps(metadata))  # as it is once saved
    if "training" in known:
        before = _identify(found["model"], found["schema"], known)
        now = _identify(model.config.to_dict(), model.schema.to_dict() if model.schema else None, wanted)
        changed = [f"{part} ({', '.join(names)})" for part in now if (names := _differences(before[part], now[part]))]
        if changed:
            raise TrainingError(
                f"the run in {folder} had another {' and '.join(changed)}; "
                "resume with the same, or begin anew with --overwrite"
            )
        lengths = ("epochs", "patience", "max_minutes")
        if known.get("finished") and all(known["training"].get(name) == wanted["training"][name] for name in lengths):
            return True
        if (folder / LAST_NAME).exists() or not known.get("finished"):
            return False
    raise TrainingError(
        f"{folder} holds a model, but no run to go on with (no {LAST_NAME}); "
        "choose another folder, or replace the model with --overwrite"
    )


def _identify(model: dict[str, Any], schema: dict[str, Any] | None, metadata: dict[str, Any]) -> dict[str, Any]:
    """What makes a run that run."""
    settings = {name: value for name, value in metadata["training"].items() if name not in _FREE_SETTINGS}
    return {
        "model": json.loads(json.dumps(model)),
        "schema": schema or {},
        "settings": settings,
        "data": metadata["data"],
    }


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _find_last(folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one.

    Raises:
        TrainingError: it is not whole.
    """
    path = folder / LAST_NAME
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        if not {"state_dict", "optimizer_states", "loops", "callbacks", "minutes"} <= set(content):
            raise ValueError("it is no state of a run")
    except Exception as error:  # torch raises whatever its parts do
        raise TrainingError(f"{path} cannot be read ({type(error).__name__}); begin anew with --overwrite") from error
    return path


def _load_best(model: Model, folder: Path) -> Model:
    with torch.random.fork_rng():  # building a model draws its first weights
        model.load_state_dict(load_model(folder).state_dict())
    return model.eval()


def _choose_callbacks(config: TrainConfig, keeper: KeepBest) -> list[pl.Callback]:
    callbacks: list[pl.Callback] = [keeper]  # before the averaging, whose weights it saves
    if config.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=config.ema_decay))
    if config.max_minutes is not None:
        callbacks.append(StopOnTime(config.max_minutes))
    return [*callbacks, SaveLast(Path(config.log_dir))]


@contextlib.contextmanager
def _compiled(model: Model, config: TrainConfig) -> Iterator[None]:
    """The encoder compiled, if that is wanted, for as long as it is trained: its names stay as they are."""
    if config.compile:
        model.encoder.compile()
    try:
        yield
    finally:
        model.encoder._compiled_call_impl = None  # there is no other way back
