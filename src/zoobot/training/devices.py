"""Lightning's trainer for the devices of a run: one, several in this machine, or those of many machines."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from zoobot.errors import SettingError, TrainingError
from zoobot.estimators.define_model import Model

if TYPE_CHECKING:
    from zoobot.training.training_config import TrainConfig

__all__ = ["STRATEGIES", "explain_lost_process", "make_trainer", "quiet_lightning", "rank_zero_only"]

# each keeps the whole model on every device: of one that is split up, no process could save a model folder
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "socket", "nccl")


def make_trainer(config: "TrainConfig", model: Model, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Lightning's trainer as the settings have it.

    Raises:
        SettingError: the settings do not work on this machine, or do not fit the processes that were started.
    """
    precision = _choose_precision(config, model)
    try:
        with quiet_lightning():
            trainer = pl.Trainer(
                accelerator=config.accelerator,
                devices=config.devices,
                num_nodes=config.num_nodes,
                strategy=config.strategy,
                precision=precision,  # type: ignore[arg-type]
                accumulate_grad_batches=config.accumulate,
                max_epochs=config.epochs if config.epochs is not None else -1,
                callbacks=callbacks,
                logger=TensorBoardLogger(Path(config.log_dir), name="tensorboard", version=""),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                benchmark=True,
                use_distributed_sampler=False,  # its own shows some galaxies twice, to make the shares equal
            )
        environment = getattr(trainer.strategy, "cluster_environment", None)  # none where a process trains alone
        if environment is not None:
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except (ValueError, TypeError, RuntimeError, ImportError, OverflowError, MisconfigurationException) as error:
        raise SettingError(
            f"accelerator {config.accelerator!r}, devices {config.devices!r}, strategy {config.strategy!r} and "
            f"precision {config.precision!r} do not work here: {error}"
        ) from error
    _check_processes(trainer.num_devices, trainer.num_nodes)
    return trainer


def _check_processes(devices: int, nodes: int) -> None:
    """Each device must have a process, or some galaxies are never seen; and each process one, or all train alone."""
    if TorchElasticEnvironment.detect():
        started, by = int(os.environ["WORLD_SIZE"]), "torchrun"
    elif SLURMEnvironment.detect():
        started, by = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)), "srun"  # set by srun alone
    else:  # Lightning starts them
        return
    if started != devices * nodes:
        raise SettingError(
            f"devices × num_nodes is {devices} × {nodes}, the number of processes that {by} started is {started}; "
            "start one for each device, and give --devices (on each machine) and --num-nodes"
        )


def _choose_precision(config: "TrainConfig", model: Model) -> str:
    if config.precision != "auto":
        return config.precision
    if config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    on_cpu = config.accelerator == "cpu" or (config.accelerator == "auto" and not torch.backends.mps.is_available())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    # a CPU's matrix instructions are of no use to depthwise convolutions, which bfloat16 makes slower
    is_depthwise = any(isinstance(part, torch.nn.Conv2d) and part.groups > 1 for part in model.encoder.modules())
    return "bf16-mixed" if on_cpu and capabilities.get("amx_bf16") and not is_depthwise else "32-true"


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice to itself: what it says here is either known or not the reader's to change."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def explain_lost_process(processes: int) -> Iterator[None]:
    """Say plainly that another process of the run is gone, as torch's own words name sockets and addresses.

    Raises:
        TrainingError: one is.
    """
    try:
        yield
    except RuntimeError as error:
        distributed = isinstance(error, torch.distributed.DistError) if torch.distributed.is_available() else False
        if processes == 1 or not (distributed or any(sign in str(error).lower() for sign in _LOST)):
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise TrainingError(
            f"one of the {processes} processes of this training has ended or cannot be reached ({reason}); see what it "
            "said last, then run the same again with --resume: it goes on after the last whole epoch"
        ) from error
