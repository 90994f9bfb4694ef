"""Training a head alone: the encoder is run once, and the best linear layer on what it gives is found in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoobot.data.datasets import GalaxyDataset, make_loader
from zoobot.errors import TrainingError
from zoobot.estimators.augment import make_views
from zoobot.estimators.define_model import Head, Model
from zoobot.progress import progress_bar

__all__ = ["PENALTIES", "FittedHead", "fit_head", "represent_views"]

PENALTIES = (1.0, 0.2, 0.05, 0.01, 0.002)
"""Of the mean square of the weights, from strong to weak."""

_ITERATIONS = 30
_BIAS_PENALTY = 1e-3  # far from where it starts, a head may be so flat that nothing is learnt any more
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class FittedHead:
    """What :func:`fit_head` found.

    Attributes:
        penalty: of the weights; the one with the least loss on galaxies that were held back.
        held_back_losses: the mean loss on these for each of ``PENALTIES``.
    """

    penalty: float
    held_back_losses: list[float]


def represent_views(model: Model, dataset: GalaxyDataset, *, batch_size: int = 64) -> Tensor:
    """Give the features of the eight views of each galaxy that quarter turns and mirrors give.

    Returns:
        (galaxies, 8, features) float32, on the CPU; the model is left in evaluation mode, on its device.
    """
    device = next(model.parameters()).device
    model.eval()
    found = []
    with progress_bar("representing", len(dataset)) as advance, torch.inference_mode():
        for batch in make_loader(dataset, batch_size):
            views = [model.represent(view).float().cpu() for view in make_views(batch.images.to(device), "dihedral")]
            found.append(torch.stack(views, dim=1))
            advance(len(batch.images))
    return torch.cat(found)


def fit_head(head: Head, features: Tensor, values: Tensor, loss: nn.Module, folds: Tensor) -> FittedHead:
    """Find the linear layer with the least loss, with a penalty of the weights chosen on galaxies held back.

    The features are brought to mean 0 and standard deviation 1 first, and the layer to features as they are after; the
    sum over galaxies of loss plus penalty is minimised by L-BFGS, from strong penalties to weak.

    Args:
        head: whose linear layer is set; whose other state, a scale for instance, is as it should be.
        features: (galaxies, views, features), float32, as :func:`represent_views` gives them.
        values: (galaxies, outputs), what to learn.
        loss: ``(values, outputs) -> (galaxies, questions)``.
        folds: (galaxies,): each fold from 0 on is held back once to choose the penalty; galaxies of −1 never are.

    Raises:
        TrainingError: the features are not finite, or no penalty gives a finite loss.
    """
    if not features.isfinite().all():
        raise TrainingError("the encoder gives features that are no finite numbers; its weights are damaged")
    location = features.mean(dim=(0, 1))
    spread = features.std(dim=(0, 1)).clamp_min(_LEAST_SPREAD)
    scaled = (features - location) / spread
    losses = torch.zeros(len(PENALTIES))
    for fold in sorted(set(folds[folds >= 0].tolist())):
        held = folds == fold
        found = _follow_path(head, scaled[~held], values[~held], loss, PENALTIES)
        for place, layer in enumerate(found):
            losses[place] += _mean_loss(head, layer, scaled[held], values[held], loss).item() * held.sum().item()
    losses /= (folds >= 0).sum()
    if not losses.isfinite().any():
        raise TrainingError("no finite loss was found; look at the labels")
    best = int(losses.nan_to_num(torch.inf).argmin())
    weight, bias = _follow_path(head, scaled, values, loss, PENALTIES[: best + 1])[-1]
    with torch.no_grad():
        head.linear.weight.copy_(weight / spread)
        head.linear.bias.copy_(bias - (weight / spread) @ location)
    return FittedHead(PENALTIES[best], losses.tolist())


def _follow_path(
    head: Head, features: Tensor, values: Tensor, loss: nn.Module, penalties: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """The best weight and bias for each penalty, each search starting from what the last one found."""
    weight = torch.zeros_like(head.linear.weight, requires_grad=True)
    start = head.linear.bias.detach()
    bias = start.clone().requires_grad_()
    found = []
    for penalty in penalties:
        search = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

        def weigh(search: torch.optim.LBFGS = search, penalty: float = penalty) -> Tensor:
            search.zero_grad()
            strayed = _BIAS_PENALTY * ((bias - start) ** 2).sum()
            total = _mean_loss(head, (weight, bias), features, values, loss) + penalty * (weight**2).sum() + strayed
            total.backward()  # type: ignore[no-untyped-call]
            return total

        search.step(weigh)  # type: ignore[no-untyped-call]
        found.append((weight.detach().clone(), bias.detach().clone()))
    return found


def _mean_loss(head: Head, layer: tuple[Tensor, Tensor], features: Tensor, values: Tensor, loss: nn.Module) -> Tensor:
    """Mean over galaxies and views of the loss, summed over questions."""
    galaxies, views, _ = features.shape
    outputs = head.activate(nn.functional.linear(features, *layer)).flatten(0, 1)
    losses: Tensor = loss(values.repeat_interleave(views, dim=0), outputs)
    return losses.sum() / (galaxies * views)
