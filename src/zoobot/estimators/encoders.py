"""Encoders by name: any of timm's, or your own module once it is registered."""

import difflib
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

from zoobot.errors import ModelError

__all__ = ["ENCODERS", "count_features", "create_encoder", "register_encoder"]

ENCODERS: dict[str, Callable[..., nn.Module]] = {}
"""Your own encoders by name; they go before timm's of the same name."""


def register_encoder(name: str, factory: Callable[..., nn.Module]) -> None:
    """Make an encoder of your own available by name.

    ``factory(channels=...)`` gives a module that turns (batch, channels, height, width) into features
    (batch, num_features), where ``num_features`` is an attribute of the module.
    A saved model is loaded by this name, so register it before loading, too.

    >>> class Mean(nn.Module):
    ...     def __init__(self, channels):
    ...         super().__init__()
    ...         self.num_features = channels
    ...     def forward(self, pixels):
    ...         return pixels.mean((2, 3))
    >>> register_encoder("mean", Mean)
    >>> create_encoder("mean", channels=3).num_features
    3
    >>> _ = ENCODERS.pop("mean")
    """
    ENCODERS[name] = factory


def create_encoder(name: str, channels: int = 3, image_size: int | None = None, **options: Any) -> nn.Module:
    """Build an encoder with fresh weights: (batch, channels, height, width) to features (batch, features).

    Args:
        name: A registered name or one of ``timm.list_models()``.
        channels: Of the images.
        image_size: Side of the images; passed on to those of timm's models that are built for one size.
        options: Passed on to the factory or to ``timm.create_model``, such as ``drop_path_rate=0.1``.

    Raises:
        ModelError: The name is unknown, or the encoder cannot be built with these.

    >>> create_encoder("resnet18", channels=1).num_features
    512
    """
    if name in ENCODERS:
        encoder = ENCODERS[name](channels=channels, **options)
    else:
        encoder = _create_timm_encoder(name, channels, image_size, options)
    count_features(encoder, name)
    for module in encoder.modules():
        if isinstance(
            module, nn.Hardtanh
        ):  # ReLU6: overwriting its input means copying that first, a tenth of the time
            module.inplace = False
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder


def _create_timm_encoder(name: str, channels: int, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    # Checked here since timm takes a name such as "hf-hub:..." as an address to download from.
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, [*ENCODERS, *timm.list_models()], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them."
        raise ModelError(f"encoder: unknown name {name!r}: {hint} Your own must be registered: register_encoder")
    settings = timm.models.get_pretrained_cfg(name)
    if image_size is not None and settings is not None and settings.fixed_input_size:
        options = {"img_size": image_size, **options}
    try:
        encoder: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
    except Exception as error:  # whatever the model's own code raises on sizes it cannot have
        raise ModelError(f"encoder: {name} cannot be built for {channels} channels with {options}: {error}") from error
    return encoder


def count_features(encoder: nn.Module, name: str = "encoder") -> int:
    """Length of the features that an encoder gives.

    Raises:
        ModelError: It has no whole number ``num_features``.
    """
    # Some of timm's models widen once more after the features that num_features counts.
    features = getattr(encoder, "head_hidden_size", None) or getattr(encoder, "num_features", None)
    if not isinstance(features, int):
        raise ModelError(f"encoder: {name} has num_features={features!r}, expected the length of its features")
    return features
