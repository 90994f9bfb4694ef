"""Loading pretrained weights into an encoder: names are matched, the first layer fits the channels, all is checked."""

import collections
import itertools
import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from zoobot.errors import ModelError
from zoobot.estimators.tensor_files import LONGEST, shorten
from zoobot.estimators.weights import PretrainedWeights

__all__ = ["adapt_channels", "load_weights"]

_ENOUGH = 0.9  # of the encoder's tensors must be there
_SHOWN = 5  # tensors named in a message


def load_weights(
    encoder: nn.Module, weights: PretrainedWeights, name: str, channels: int, image_size: int
) -> list[str]:
    """Load weights into an encoder, in place.

    Names may have any prefix and any nesting; those with the most matches are taken. The first layer is adapted to the
    encoder's channels (:func:`adapt_channels`), and encoders built for one size are resized by timm.

    Args:
        encoder: From :func:`zoobot.estimators.encoders.create_encoder`.
        weights: From :func:`read_weights`.
        name: Of the encoder, for messages.
        channels: Of the images.
        image_size: Side of the images that the encoder is for.

    Returns:
        Names of the encoder's tensors that the weights lack; those stay as they are.

    Raises:
        ModelError: Fewer than nine tenths of the encoder's tensors are there, or some do not fit.
    """
    shapes = _shapes(encoder)
    resizes = weights.image_size not in (None, image_size) and hasattr(encoder, "set_input_size")
    if resizes:
        _resize(encoder, weights.image_size, name)
    expected = encoder.state_dict()
    matched = _match(weights.tensors, expected)
    missing = _find_missing(matched, expected, weights, name)
    adapted = {key: _adapt(tensor, expected[key], channels) for key, tensor in matched.items()}
    _check(adapted, expected, weights.source, name)
    encoder.load_state_dict(adapted, strict=False)
    if resizes:
        _resize(encoder, image_size, name)
        if _shapes(encoder) != shapes:
            raise ModelError(
                f"resize_size: got {image_size}, but weights {weights.source} fit {name} at {weights.image_size} only"
            )
    return missing


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt a first convolution to images of other channels, as timm does; what it computes stays alike.

    Greyscale gets the sum over the channels: just the output for that image in every channel. More channels get the
    weights in turn, scaled by the ratio of the numbers of channels.

    Args:
        weight: (outputs, channels before, height, width).
        channels: Of the images.

    >>> adapt_channels(torch.ones(8, 3, 5, 5), channels=1).unique().item()
    3.0
    """
    before = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / before), 1, 1)
    return repeated[:, :channels] * (before / channels)


def _match(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the tensors of the encoder, under the prefix with the most of them."""
    found: collections.Counter[str] = collections.Counter()
    for key in tensors:
        name = key[:LONGEST]
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        found.update(key[:start] for start in starts if key[start:] in expected)
    prefix = found.most_common(1)[0][0] if found else ""
    return {key: tensors[prefix + key] for key in expected if prefix + key in tensors}


def _find_missing(
    matched: Mapping[str, Tensor], expected: Mapping[str, Tensor], weights: PretrainedWeights, name: str
) -> list[str]:
    # Batch normalisation's counters, which are no floats, are in some files and not in others; nothing needs them.
    wanted = [key for key, tensor in expected.items() if tensor.is_floating_point()]
    missing = [key for key in wanted if key not in matched]
    if len(missing) > (1 - _ENOUGH) * len(wanted):
        raise ModelError(
            f"weights: {weights.source} has {len(wanted) - len(missing)} of the {len(wanted)} tensors of encoder "
            f"{name}, expected nine tenths: give the encoder that they are of\n"
            f"  got {_list(weights.tensors)}\n  expected {_list(missing)}"
        )
    return missing


def _adapt(tensor: Tensor, expected: Tensor, channels: int) -> Tensor:
    """Adapt what must be the first layer: it differs in nothing but the channels of the images."""
    alike = tensor.ndim == expected.ndim == 4 and expected.shape[1] == channels
    if alike and tensor.shape != expected.shape and tensor[:, 0].shape == expected[:, 0].shape:
        return adapt_channels(tensor.float(), channels)
    return tensor


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, name: str) -> None:
    faults = []
    for key, tensor in tensors.items():
        wanted = expected[key]
        if tensor.shape != wanted.shape:
            faults.append(f"  {key}: got {tuple(tensor.shape)}, expected {tuple(wanted.shape)}")
        elif tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_complex():
            faults.append(f"  {key}: got {tensor.dtype}, expected {wanted.dtype}")
        elif tensor.is_floating_point() and not tensor.float().isfinite().all():
            faults.append(f"  {key}: has values that are no finite numbers")
    if faults:
        more = [f"  and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        lines = [f"weights: {source} does not fit encoder {name}: give the encoder that they are of"]
        raise ModelError("\n".join(lines + faults[:_SHOWN] + more))


def _resize(encoder: nn.Module, size: int | None, name: str) -> None:
    try:
        encoder.set_input_size(img_size=size)  # type: ignore[operator]
    except Exception as error:  # whatever the model's own code raises
        raise ModelError(f"encoder {name} cannot take images of {size} pixels ({shorten(error)})") from error


def _shapes(encoder: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in encoder.state_dict().items()}


def _list(names: Collection[str]) -> str:
    shown = ", ".join(name[:LONGEST] for name in itertools.islice(names, _SHOWN))
    return f"{shown}, …" if len(names) > _SHOWN else shown or "no tensors"
