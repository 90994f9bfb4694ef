"""Training a head alone: the encoder is run once, and the best linear layer on what it gives is found in seconds."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoobot.data.datasets import GalaxyDataset, make_loader
from zoobot.errors import TrainingError
from zoobot.estimators.augment import make_views
from zoobot.estimators.define_model import Head, Model
from zoobot.progress import progress_bar

__all__ = ["PENALTIES", "FittedHead", "fit_head", "represent_views"]

PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.2, 0.05, 0.01, 0.002)
"""Of the sum of the squares of the weights, from strong to weak."""

_ITERATIONS = 30
_BIAS_PENALTY = 1e-3  # far from where it starts, a head may be so flat that nothing is learnt any more
_LEAST_SPREAD = 1e-12


@dataclass(frozen=True)
class FittedHead:
    """What :func:`fit_head` found.

    Attributes:
        penalty: of the weights; the one with the least loss on galaxies that were held back.
        held_back_losses: the mean loss on these for each of ``PENALTIES``.
        from_answers: whether it looks at a galaxy model's answers, instead of all features.
    """

    penalty: float
    held_back_losses: list[float]
    from_answers: bool = False


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


def fit_head(
    head: Head, features: Tensor, values: Tensor, loss: nn.Module, folds: Tensor, known: Tensor | None = None
) -> FittedHead:
    """Find the linear layer with the least loss, with a penalty of the weights chosen on galaxies held back.

    The features are brought to mean 0 and, all by the same factor, to a mean variance of 1 first, and the layer to
    features as they are after. Brought to the same variance each, those that hardly vary would drown the others.
    What is minimised, by L-BFGS, is the mean over galaxies and views of the loss, summed over questions, plus
    ``penalty · Σw²``. Each penalty is tried from the start: a strong one may drive a head to where it is flat.

    With few labels, a galaxy model's own answers, some tens, tell more than its thousand features: they are tried in
    place of these, and taken if the loss on galaxies held back is less.

    Args:
        head: whose linear layer is set; whose other state, a scale for instance, is as it should be.
        features: (galaxies, views, features), float32, as :func:`represent_views` gives them.
        values: (galaxies, outputs), what to learn.
        loss: ``(values, outputs) -> (galaxies, questions)``.
        folds: (galaxies,): each fold from 0 on is held back once to choose the penalty; galaxies of −1 never are.
        known: (answers, features), weights of the layer that the galaxy model has after these features.

    Raises:
        TrainingError: the features are not finite, or no penalty gives a finite loss.
    """
    if not features.isfinite().all():
        raise TrainingError("the encoder gives features that are no finite numbers; its weights are damaged")
    choices = [_weigh_penalties(head, features, values, loss, folds)]
    if known is not None:
        choices.append(_weigh_penalties(head, features @ known.T, values, loss, folds))
    losses = torch.stack(choices).nan_to_num(torch.inf)
    if not losses.isfinite().any():
        raise TrainingError("no finite loss was found; look at the labels")
    from_answers, best = divmod(int(losses.argmin()), len(PENALTIES))
    inputs = features @ known.T if from_answers and known is not None else features
    location, spread = _find_scale(inputs)
    weight, bias = _search(head, (inputs - location) / spread, values, loss, PENALTIES[best])
    weight = weight / spread
    bias = bias - weight @ location
    with torch.no_grad():
        head.linear.weight.copy_(weight @ known if from_answers and known is not None else weight)
        head.linear.bias.copy_(bias)
    return FittedHead(PENALTIES[best], losses[from_answers].tolist(), bool(from_answers))


def _find_scale(inputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.mean(dim=(0, 1)), inputs.var(dim=(0, 1)).mean().sqrt().clamp_min(_LEAST_SPREAD)


def _weigh_penalties(head: Head, inputs: Tensor, values: Tensor, loss: nn.Module, folds: Tensor) -> Tensor:
    """The mean loss on galaxies held back for each penalty."""
    location, spread = _find_scale(inputs)
    scaled = (inputs - location) / spread
    losses = torch.zeros(len(PENALTIES))
    for fold in sorted(set(folds[folds >= 0].tolist())):
        held = folds == fold
        for place, penalty in enumerate(PENALTIES):
            layer = _search(head, scaled[~held], values[~held], loss, penalty)
            losses[place] += _mean_loss(head, layer, scaled[held], values[held], loss).item() * held.sum().item()
    return losses / (folds >= 0).sum()


def _search(head: Head, features: Tensor, values: Tensor, loss: nn.Module, penalty: float) -> tuple[Tensor, Tensor]:
    """The best weight and bias, from where a new head starts."""
    weight = torch.zeros(len(head.linear.bias), features.shape[2], requires_grad=True)
    start = head.linear.bias.detach()
    bias = start.clone().requires_grad_()
    search = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def weigh() -> Tensor:
        search.zero_grad()
        strayed = _BIAS_PENALTY * ((bias - start) ** 2).sum()
        total = _mean_loss(head, (weight, bias), features, values, loss) + penalty * (weight**2).sum() + strayed
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(weigh)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _mean_loss(head: Head, layer: tuple[Tensor, Tensor], features: Tensor, values: Tensor, loss: nn.Module) -> Tensor:
    """Mean over galaxies and views of the loss, summed over questions."""
    galaxies, views, _ = features.shape
    outputs = head.activate(nn.functional.linear(features, *layer)).flatten(0, 1)
    losses: Tensor = loss(values.repeat_interleave(views, dim=0), outputs)
    return losses.sum() / (galaxies * views)
