"""What Lightning trains: the model, its loss and its schedule, with randomness that a resumed run repeats."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from zoobot.data.datasets import Batch, GalaxyDataset, make_loader
from zoobot.errors import TrainingError
from zoobot.estimators.define_model import Model
from zoobot.estimators.layers import freeze_layers, learning_rate_scales

if TYPE_CHECKING:
    from zoobot.training.training_config import TrainConfig

__all__ = ["EstimatorModule", "GalaxyData", "MultiquestionLossFunction", "learning_rate_factor"]

MultiquestionLossFunction = Callable[[Tensor, Tensor], Tensor]
WARM_UP = 0.05


def learning_rate_factor(progress: float) -> float:
    """The share of the full learning rate at some point of the run: a linear warm-up, then half a cosine to zero.

    Args:
        progress: how much of the run is done, from 0 to 1.

    >>> [round(learning_rate_factor(progress), 3) for progress in (0.025, 0.05, 0.525, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


def _mix(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


class EpochSampler(Sampler[int]):
    """A random order of all galaxies that depends only on the seed and the epoch, which Lightning tells it.

    Args:
        length: the number of galaxies.
        seed: of the run.
        epoch: the first.
        order: the dataset's own way to an order of all galaxies from a seed, if it has one; else it is a shuffle.
    """

    def __init__(self, length: int, seed: int, epoch: int, order: Callable[[int], Sequence[int]] | None = None) -> None:
        self._length, self._seed, self._epoch, self._order = length, seed, epoch, order

    def set_epoch(self, epoch: int) -> None:
        """Change the order."""
        self._epoch = epoch

    def __len__(self) -> int:
        """The number of galaxies."""
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Their positions."""
        seed = _mix(self._seed, self._epoch)
        if self._order is not None:
            yield from self._order(seed)
            return
        generator = torch.Generator().manual_seed(seed)
        yield from torch.randperm(self._length, generator=generator).tolist()


class GalaxyData(pl.LightningDataModule):
    """The training galaxies in a new order each epoch, and the test galaxies in theirs."""

    def __init__(self, train_dataset: GalaxyDataset, test_dataset: GalaxyDataset, settings: "TrainConfig") -> None:
        super().__init__()
        self._train, self._test, self._settings = train_dataset, test_dataset, settings

    def train_dataloader(self) -> "DataLoader[Batch]":
        """Batches to learn from."""
        if self.trainer is None:
            raise RuntimeError("a trainer must ask for it, which knows the epoch")
        epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        sampler = EpochSampler(len(self._train), self._settings.seed, epoch, getattr(self._train, "epoch_order", None))
        batch_size = self._settings.batch_size
        while len(sampler) > 1 and len(sampler) % batch_size == 1:
            batch_size += 1  # batch normalisation cannot take a last batch of one galaxy
        return make_loader(self._train, batch_size, sampler=sampler, workers=self._settings.workers or 0)

    def val_dataloader(self) -> "DataLoader[Batch]":
        """Batches to stop by."""
        return make_loader(self._test, self._settings.batch_size, workers=self._settings.workers or 0)


class EstimatorModule(pl.LightningModule):
    """The training of one model.

    Every random choice of a step (augmentation, dropout) is drawn from a seed made of the run's seed and the step's
    number, and every epoch's order from the epoch's number, so that a resumed run repeats what an unbroken one does.

    Args:
        model: the model.
        loss: ``(votes, concentrations) -> (galaxies, questions)`` or ``(galaxies,)``.
        settings: how to train.
    """

    def __init__(self, model: Model, loss: MultiquestionLossFunction, settings: "TrainConfig") -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.minutes_before = 0.0
        self.epoch_cut_short = False
        self._loss = loss if isinstance(loss, nn.Module) else _Callable(loss)
        self._started = time.monotonic()
        self._unchecked: tuple[Tensor, list[str]] | None = None
        self._totals: dict[str, Tensor] = {}
        self._still = [] if settings.layers is None else freeze_layers(model.encoder, settings.layers)
        if settings.freeze_batch_norm:
            norms = (nn.modules.batchnorm._NormBase,)  # of any dimension, timm's own too
            self._still += [part for part in model.encoder.modules() if isinstance(part, norms)]
        self.train()

    def train(self, mode: bool = True) -> "EstimatorModule":
        """Train, save what is frozen."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self

    # one step

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate and the seed of this step."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["share"] * self.settings.learning_rate * learning_rate_factor(self.progress())
        torch.manual_seed(_mix(self.settings.seed, self.global_step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch: summed over questions, averaged over galaxies."""
        self.check_finite()
        losses = self._losses(batch, "train")
        loss = losses.sum() / len(losses)
        self._unchecked = loss.detach(), batch.id_str
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add up the losses of the test galaxies."""
        self._unchecked = self._losses(batch, "test").sum(), batch.id_str
        self.check_finite()

    def _losses(self, batch: Batch, split: str) -> Tensor:
        losses: Tensor = self._loss(batch.votes, self.model(batch.images))
        losses = losses.reshape(len(batch.images), -1)
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        total = torch.cat([losses.detach().to(wide).sum(0), losses.new_tensor([len(losses)], dtype=wide)])
        self._totals[split] = self._totals[split] + total if split in self._totals else total
        return losses

    def check_finite(self) -> None:
        """Look at the loss of the step before: by now it is there, and no device is kept waiting.

        Raises:
            TrainingError: it is not finite.
        """
        if self._unchecked is None:
            return
        (loss, ids), self._unchecked = self._unchecked, None
        if not torch.isfinite(loss):
            names = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            raise TrainingError(
                f"the loss became {loss.item()} at step {self.global_step} in the batch of galaxies {names}; "
                "the best model so far, if any, is kept: try a lower learning rate, or look at these galaxies' votes"
            )

    # the end of an epoch

    def on_train_epoch_start(self) -> None:
        """Begin the sums of an epoch anew."""
        self._totals.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        """Begin the sums of the test galaxies anew."""
        self._totals.pop("test", None)

    def mean_losses(self, split: str) -> Tensor:
        """The mean loss of each question over all galaxies of this epoch, on all devices: (questions,) float64."""
        totals = self.trainer.strategy.reduce(self._totals[split], reduce_op="sum")
        if not isinstance(totals, Tensor):
            raise TypeError("the strategy's reduce gave no tensor")
        return (totals[:-1] / totals[-1]).cpu()

    # the run

    def minutes(self) -> float:
        """Minutes of training so far, those before an interruption included; the same on all devices."""
        minutes = self.minutes_before + (time.monotonic() - self._started) / 60
        return float(self.trainer.strategy.broadcast(minutes)) if self.trainer.world_size > 1 else minutes

    def progress(self) -> float:
        """How much of the run is done, from 0 to 1: by steps, or by time where that runs out first."""
        limit = self.settings.max_minutes
        by_time = self.minutes() / limit if limit else 0.0
        epochs, steps_an_epoch = self.settings.epochs, max(1, int(self.trainer.num_training_batches))
        by_steps = (self.global_step + 0.5) / (epochs * steps_an_epoch) if epochs else 0.0
        return min(1.0, max(by_time, by_steps))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; no weight decay on biases and normalisation, which have one dimension; early layers learn slower."""
        shares = learning_rate_scales(self.model.encoder, self.settings.layer_decay)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                share = shares.get(name.removeprefix("encoder."), 1.0)
                decay = self.settings.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((share, decay), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": group, "share": share, "weight_decay": decay} for (share, decay), group in groups.items()],
            lr=self.settings.learning_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the time spent."""
        checkpoint["minutes"] = self.minutes()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the time spent."""
        self.minutes_before = checkpoint["minutes"]
        self._started = time.monotonic()


class _Callable(nn.Module):
    """A plain function as a module, so that a loss can be either."""

    def __init__(self, function: MultiquestionLossFunction) -> None:
        super().__init__()
        self._function = function

    def forward(self, votes: Tensor, concentrations: Tensor) -> Tensor:
        return self._function(votes, concentrations)
