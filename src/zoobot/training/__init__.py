"""Losses and training."""

import zoobot.estimators  # noqa: F401  # mends torchvision where it must be, before lightning looks for it
