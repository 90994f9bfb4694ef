"""The model: augmentation, encoder, head, and its folder on disk."""

from zoobot.estimators.torchvision_operators import declare_missing_operators

__all__: list[str] = []

declare_missing_operators()
