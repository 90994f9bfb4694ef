"""The layers of an encoder from the first to the last: which of them learn, and how fast."""

from timm.models import group_parameters
from torch import nn

from zoobot.errors import SettingError

__all__ = ["count_layers", "freeze_layers", "learning_rate_scales"]


def count_layers(encoder: nn.Module) -> int:
    """How many layers an encoder has: a stem and its blocks, as timm groups them; parts of it, if it is no timm model.

    >>> from zoobot.estimators.encoders import create_encoder
    >>> count_layers(create_encoder("resnet18"))
    9
    """
    return max(_find_layers(encoder).values(), default=-1) + 1


def freeze_layers(encoder: nn.Module, trained: int) -> list[nn.Module]:
    """Freeze all but the last layers of an encoder.

    Args:
        encoder: its parameters are told whether they learn.
        trained: how many layers do; 0 for none of them.

    Returns:
        The parts that are frozen, which must stay in evaluation mode: there, the running statistics of batch
        normalisation stay as they are, and nothing is dropped out.

    Raises:
        SettingError: ``trained`` is negative.

    >>> from zoobot.estimators.encoders import create_encoder
    >>> encoder = create_encoder("resnet18")
    >>> _ = freeze_layers(encoder, trained=2)
    >>> sorted({name[:8] for name, parameter in encoder.named_parameters() if parameter.requires_grad})
    ['layer4.0', 'layer4.1']
    """
    if trained < 0:
        raise SettingError(f"layers is {trained}; it must be from 0 (the head alone), or left out for all of them")
    found = _find_layers(encoder)
    first = count_layers(encoder) - trained
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(found[name] >= first)
    return [part for part in encoder.modules() if _is_frozen(part)]


def _is_frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def learning_rate_scales(encoder: nn.Module, decay: float) -> dict[str, float]:
    """Share of the learning rate that each parameter gets: ``decay`` for the last layer, ``decay²`` before it, ….

    What pretrained layers have learnt is the more general the earlier they are (Clark et al. 2020, arXiv:2003.10555).

    >>> from zoobot.estimators.encoders import create_encoder
    >>> scales = learning_rate_scales(create_encoder("resnet18"), decay=0.5)
    >>> scales["layer4.1.conv1.weight"], scales["layer4.0.conv1.weight"]
    (0.5, 0.25)
    """
    layers = count_layers(encoder)
    return {name: decay ** (layers - layer) for name, layer in _find_layers(encoder).items()}


def _find_layers(encoder: nn.Module) -> dict[str, int]:
    """The layer of each parameter, counted from the first."""
    if hasattr(encoder, "group_matcher"):
        found: dict[str, int] = group_parameters(encoder, encoder.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
        return found
    parts = [name for name, part in encoder.named_children() if any(True for _ in part.parameters())]
    places = {name: place for place, name in enumerate(parts)}
    return {name: places.get(name.split(".")[0], 0) for name, _ in encoder.named_parameters()}
