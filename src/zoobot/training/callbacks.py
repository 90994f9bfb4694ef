"""What happens around the steps of training: the best model is kept, the run saved, shown and stopped."""

import contextlib
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from zoobot.estimators.checkpoint import load_config, save_model
from zoobot.files import replace_atomically
from zoobot.progress import Advance, progress_bar
from zoobot.training.estimator_module import EstimatorModule
from zoobot.training.history import History

__all__ = ["LAST_NAME", "KeepBest", "SaveLast", "ShowProgress", "StopOnInterrupt", "StopOnTime"]

LAST_NAME = "last.ckpt"


class KeepBest(pl.Callback):
    """After each epoch: record the losses, save the model if it is the best yet, stop if it has not been for long.

    It must come before the callback that averages weights, so that it saves the averaged ones which were tested.

    Args:
        folder: the model folder.
        patience: epochs without a better test loss after which to stop.
        question_names: what the columns of the loss are.
        metadata: what to save with the model besides its metrics.
    """

    def __init__(self, folder: Path, patience: int, question_names: list[str], metadata: dict[str, Any]) -> None:
        self.folder, self.patience, self.metadata = folder, patience, metadata
        self.question_names = question_names
        self.best_loss = float("inf")
        self.epochs_since_best = 0
        self.history = History(folder)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {
            "best_loss": self.best_loss,
            "epochs_since_best": self.epochs_since_best,
            "epochs": len(self.history.rows),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best_loss = state_dict["best_loss"]
        self.epochs_since_best = state_dict["epochs_since_best"]
        self.history = History(self.folder, state_dict["epochs"])
        saved = load_config(self.folder)["metadata"]["metrics"]
        if saved["epoch_cut_short"]:  # by Ctrl-C or the clock, after the last whole epoch
            self.best_loss = min(self.best_loss, saved["test_loss"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the run to resume had come to its end by patience."""
        if self.epochs_since_best >= self.patience:
            trainer.should_stop = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the test loss with the best so far."""
        module = _estimator(pl_module)
        module.check_finite()
        train, test = module.mean_losses("train"), module.mean_losses("test")
        test_loss = test.sum().item()
        improved = test_loss < self.best_loss
        self.epochs_since_best = 0 if improved else self.epochs_since_best + 1
        self.best_loss = min(self.best_loss, test_loss)
        if self.epochs_since_best >= self.patience:
            trainer.should_stop = True
        minutes = module.minutes()  # all devices must ask for it together
        if trainer.is_global_zero:
            self._record(trainer, minutes, train, test)
            if improved:
                metrics = {
                    "epoch": len(self.history.rows),
                    "epoch_cut_short": module.epoch_cut_short,
                    "test_loss": test_loss,
                    **self._by_question("test", test),
                }
                save_model(module.model, self.folder, {**self.metadata, "metrics": metrics})

    def _record(self, trainer: pl.Trainer, minutes: float, train: Tensor, test: Tensor) -> None:
        first = trainer.optimizers[0].param_groups[0]
        row = {
            "epoch": len(self.history.rows) + 1,
            "step": trainer.global_step,
            "minutes": round(minutes, 3),
            "learning_rate": first["lr"] / first["share"],  # that of the head: early layers may learn slower
            "train_loss": train.sum().item(),
            "test_loss": test.sum().item(),
            **self._by_question("train", train),
            **self._by_question("test", test),
        }
        self.history.add(row)
        if trainer.logger is not None:
            trainer.logger.log_metrics({name: row[name] for name in row if name != "step"}, step=trainer.global_step)

    def _by_question(self, split: str, losses: Tensor) -> dict[str, float]:
        names = self.question_names if len(self.question_names) == len(losses) else range(len(losses))
        return {f"{split}_loss_{name}": loss for name, loss in zip(names, losses.tolist(), strict=True)}


class SaveLast(pl.Callback):
    """Save the whole state of the run after each epoch, to resume from."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LAST_NAME

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless the epoch was cut short: a run resumed from there would not equal an unbroken one."""
        if _estimator(pl_module).epoch_cut_short:
            return
        if trainer.is_global_zero:
            with replace_atomically(self._path) as path:
                trainer.save_checkpoint(path)
        else:
            trainer.save_checkpoint(self._path)  # only takes part; the first process writes


class StopOnTime(pl.Callback):
    """Stop when the time is up, leaving enough of it for a last look at the test galaxies."""

    def __init__(self, max_minutes: float) -> None:
        self._max_minutes = max_minutes
        self._testing_minutes = 0.0
        self._testing_began = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock."""
        if _may_ask(trainer, batch_idx) and self._is_time(trainer, pl_module):
            _stop_early(trainer, pl_module, batch_idx)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._testing_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Learn how long testing takes."""
        self._testing_minutes = (time.monotonic() - self._testing_began) / 60
        if self._is_time(trainer, pl_module):
            trainer.should_stop = True

    def _is_time(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        minutes = _estimator(module).minutes() + self._testing_minutes
        return _agree(trainer, minutes >= self._max_minutes)


def _stop_early(trainer: pl.Trainer, module: pl.LightningModule, batch_idx: int) -> None:
    """Ask for an end after this batch; the model is still tested, and kept if it is the best."""
    trainer.should_stop = True
    _estimator(module).epoch_cut_short = batch_idx + 1 < trainer.num_training_batches


def _agree(trainer: pl.Trainer, decision: bool) -> bool:
    """Whether any of the devices decided so: all must stop together, or the others wait for ever."""
    return trainer.strategy.reduce_boolean_decision(decision, all=False) if trainer.world_size > 1 else decision


def _may_ask(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether to agree after this batch: several devices wait for each other to do so, hence only now and then."""
    return trainer.world_size == 1 or (batch_idx + 1) % 16 == 0 or batch_idx + 1 == trainer.num_training_batches


def _estimator(module: pl.LightningModule) -> EstimatorModule:
    if not isinstance(module, EstimatorModule):
        raise TypeError(f"these callbacks train an EstimatorModule, not a {type(module).__name__}")
    return module


class StopOnInterrupt(pl.Callback):
    """On Ctrl-C finish the batch, test the model and stop; on a second one stop at once.

    It listens for as long as it is entered as a context.

    Attributes:
        asked: whether somebody pressed it.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> "StopOnInterrupt":
        """Listen; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        """Listen no more."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Pass the wish on."""
        if _may_ask(trainer, batch_idx) and _agree(trainer, self.asked):
            _stop_early(trainer, pl_module, batch_idx)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say = rank_zero_only(Console(stderr=True).print)  # all processes of a terminal hear it
        say("stopping: a last look at the test galaxies (Ctrl-C again to stop at once)")


class ShowProgress(pl.Callback):
    """A bar for each epoch with galaxies a second and the loss, then a line with what the test said."""

    def __init__(self, keeper: KeepBest, epochs: int | None, galaxies: int) -> None:
        self._keeper, self._epochs, self._galaxies = keeper, epochs, galaxies
        self._open = contextlib.ExitStack()
        self._advance: Advance | None = None
        self._shown = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        if trainer.is_global_zero:
            epoch = f"epoch {trainer.current_epoch + 1}" + (f" of {self._epochs}" if self._epochs else "")
            self._advance = self._open.enter_context(progress_bar(epoch, self._galaxies))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; fetch the loss from the device only now and then, as that makes it wait."""
        if self._advance is None:
            return
        note = ""
        if time.monotonic() - self._shown > 0.5:
            note, self._shown = f"loss {float(outputs['mean_loss']):.3f}", time.monotonic()
        self._advance(len(batch.id_str) * trainer.world_size, note)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how the epoch went."""
        self._close()
        keeper = self._keeper
        if trainer.is_global_zero and keeper.history.rows:
            row = keeper.history.rows[-1]
            best = " (best so far, saved)" if keeper.epochs_since_best == 0 else ""
            Console(stderr=True).print(f"  train loss {row['train_loss']:.4f}, test loss {row['test_loss']:.4f}{best}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        self._open.close()
        self._advance = None
