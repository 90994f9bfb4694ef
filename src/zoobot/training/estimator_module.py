"""What Lightning trains: the model, its loss and its schedule, with randomness that a resumed run repeats."""

import math
import time
import zlib
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

    Several processes take turns in that one order, so that each galaxy is seen once, and the galaxies of a step are
    those that one process would see in it.

    Args:
        length: the number of galaxies.
        seed: of the run.
        epoch: the first.
        order: the dataset's own way to an order of all galaxies from a seed, if it has one; else it is a shuffle.
        rank: the number of this process, from 0.
        processes: how many share the galaxies.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        epoch: int,
        order: Callable[[int], Sequence[int]] | None = None,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._length, self._seed, self._epoch, self._order = length, seed, epoch, order
        self._rank, self._processes = rank, processes

    def set_epoch(self, epoch: int) -> None:
        """Change the order."""
        self._epoch = epoch

    def __len__(self) -> int:
        """The number of galaxies of this process."""
        return len(range(self._rank, self._length, self._processes))

    def __iter__(self) -> Iterator[int]:
        """Their positions."""
        seed = _mix(self._seed, self._epoch)
        if self._order is not None:
            order = self._order(seed)
            _check_agreement(order)
        else:
            order = torch.randperm(self._length, generator=torch.Generator().manual_seed(seed)).tolist()
        yield from order[self._rank :: self._processes]


def _check_agreement(order: Sequence[int]) -> None:
    """See that all processes of a run have the same order; that of shards behind a URL depends on the cache's size.

    Raises:
        TrainingError: they have not: some galaxies would be seen twice, and others never.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    sums = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(sums, zlib.crc32(np.asarray(order, np.int64).tobytes()))
    if len(set(sums)) > 1:
        raise TrainingError(
            "the processes of this training would read the shards in different orders, as their caches hold different "
            "numbers of files; set ZOOBOT_CACHE_GB to the same for all of them"
        )


class GalaxyData(pl.LightningDataModule):
    """The training galaxies in a new order each epoch, and the test galaxies in theirs, shared by all processes.

    A step takes ``batch_size`` galaxies for each process, the last one of an epoch shares out evenly what is left: all
    processes make equally many steps. Should it leave a process fewer than two galaxies, which batch normalisation
    needs, batches are a little larger.

    Args:
        train_dataset: galaxies to learn from.
        test_dataset: galaxies to test by.
        settings: how to train.
        processes: how many share the galaxies.

    Raises:
        TrainingError: there are too few galaxies for so many processes.
    """

    def __init__(
        self, train_dataset: GalaxyDataset, test_dataset: GalaxyDataset, settings: "TrainConfig", processes: int = 1
    ) -> None:
        super().__init__()
        self._train, self._test, self._settings, self._processes = train_dataset, test_dataset, settings, processes
        if len(train_dataset) < 2 * processes or len(test_dataset) < processes:
            raise TrainingError(
                f"{len(train_dataset)} galaxies to train on and {len(test_dataset)} to test by are too few for "
                f"{processes} devices: each needs two and one; use fewer devices"
            )
        self._batch_size = settings.batch_size
        while 0 < len(train_dataset) % (self._batch_size * processes) < 2 * processes:
            self._batch_size += 1

    def train_dataloader(self) -> "DataLoader[Batch]":
        """Batches to learn from."""
        if self.trainer is None:
            raise RuntimeError("a trainer must ask for it, which knows the epoch")
        sampler = EpochSampler(
            len(self._train),
            self._settings.seed,
            self.trainer.fit_loop.epoch_progress.current.processed,  # type: ignore[attr-defined]
            getattr(self._train, "epoch_order", None),
            rank=self.trainer.global_rank,
            processes=self._processes,
        )
        return make_loader(self._train, self._batch_size, sampler=sampler, workers=self._settings.workers or 0)

    def val_dataloader(self) -> "DataLoader[Batch]":
        """Batches to stop by: no galaxy twice, though some processes may have one more than others."""
        rank = self.trainer.global_rank if self.trainer else 0
        share = range(rank, len(self._test), self._processes)
        return make_loader(
            self._test,
            self._settings.batch_size,
            sampler=share,  # type: ignore[arg-type]  # a loader takes any iterable with a length
            workers=self._settings.workers or 0,
        )

    def count_galaxies(self, first: int, batches: int) -> int:
        """How many galaxies all processes together see in so many batches of an epoch, beginning with that number."""
        step = self._batch_size * self._processes
        return min(len(self._train), (first + batches) * step) - first * step


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
        norms = [part for part in model.encoder.modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
        if settings.freeze_batch_norm:
            self._still += norms
        self.train()
        self._moving = [part for part in norms if part.training and part.track_running_stats]

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
            group["lr"] = group["share"] * self.settings.learning_rate * learning_rate_factor(self.progress(batch_idx))
        accumulate = self.settings.accumulate
        batches = self.global_step * accumulate + batch_idx % accumulate
        torch.manual_seed(_mix(self.settings.seed, batches, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch: summed over questions, averaged over galaxies, as ``mean_loss``.

        ``loss`` is this batch's part in the mean over all galaxies of the optimiser's step, on all devices and in all
        batches it accumulates. Lightning averages over both as if all batches were equal, hence the factor.
        """
        self.check_finite()
        losses = self._losses(batch, "train")
        accumulate, processes = self.settings.accumulate, self.trainer.world_size
        galaxies = self.trainer.datamodule.count_galaxies(  # type: ignore[attr-defined]
            batch_idx // accumulate * accumulate, accumulate
        )
        total = losses.sum()
        mean = total.detach() / len(losses)
        self._unchecked = mean, batch.id_str
        return {"loss": total / galaxies * (accumulate * processes), "mean_loss": mean}

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
        """Begin the sums of the test galaxies anew, with the same model on all devices."""
        self.check_finite()  # of the last step, before test galaxies are blamed
        self._totals.pop("test", None)
        if self.trainer.world_size > 1:  # weights are the same, running statistics differ since the last step
            for part in self._moving:
                for statistic in (part.running_mean, part.running_var):
                    self.trainer.strategy.reduce(statistic, reduce_op="mean")  # in place

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

    def on_train_end(self) -> None:
        """Wait for the first process, which may still be writing the model that the others are to read."""
        self.trainer.strategy.barrier()

    def progress(self, batch_idx: int) -> float:
        """How much of the run is done, from 0 to 1: by the optimiser's steps, or by time where that runs out first.

        Steps are counted from the epoch, as a run may go on with another number of devices, hence of steps an epoch.
        """
        limit = self.settings.max_minutes
        by_time = self.minutes() / limit if limit else 0.0
        accumulate, epochs = self.settings.accumulate, self.settings.epochs
        steps_an_epoch = max(1, math.ceil(self.trainer.num_training_batches / accumulate))
        steps = self.trainer.current_epoch * steps_an_epoch + batch_idx // accumulate
        by_steps = (steps + 0.5) / (epochs * steps_an_epoch) if epochs else 0.0
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
