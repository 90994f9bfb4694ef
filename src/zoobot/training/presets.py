"""Recipes for training that were found by experiments on real galaxies (docs/experiments.md)."""

from dataclasses import dataclass
from typing import Any

from zoobot.errors import SettingError

__all__ = ["PRESETS", "Preset", "choose_preset"]


@dataclass(frozen=True)
class Preset:
    """Settings of a model and of its training; whatever is not here keeps its default.

    Attributes:
        purpose: in a line.
        crop: share of the image's side that is cropped, about the centre.
        model: settings of :func:`zoobot.estimators.define_model.get_model`.
        training: settings of :class:`~zoobot.training.training_config.TrainConfig`.
    """

    purpose: str
    crop: float
    model: dict[str, Any]
    training: dict[str, Any]

    def settings(self, image_size: int) -> dict[str, Any]:
        """All settings by name, for images of so many pixels.

        >>> PRESETS["best"].settings(212)["crop_size"]
        117
        """
        return {"crop_size": max(1, round(self.crop * image_size)), **self.model, **self.training}


_START = {"weights": "imagenet-lite0", "move": 0.2, "zoom": (0.85, 1.15)}

PRESETS = {
    "fast": Preset(
        "a first look: small images, few epochs",
        0.55,
        {**_START, "resize_size": 64},
        {"epochs": 8, "ema_decay": 0.99},
    ),
    "balanced": Preset(
        "a fifth of the time of best, and nearly as good",
        0.55,
        {**_START, "resize_size": 96},
        {"epochs": 16, "ema_decay": 0.99},
    ),
    "best": Preset(
        "as good as was found: many epochs, with more left to chance against learning by heart",
        0.55,
        {**_START, "resize_size": 128, "dropout_rate": 0.3, "drop_path_rate": 0.2},
        {"epochs": 46, "patience": 46, "ema_decay": 0.998},
    ),
}
"""By name."""


def choose_preset(name: str) -> Preset:
    """Find a preset.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in PRESETS:
        known = "; ".join(f"{each} ({preset.purpose})" for each, preset in PRESETS.items())
        raise SettingError(f"preset: got {name!r}, expected one of {known}")
    return PRESETS[name]
