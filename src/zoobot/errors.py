"""The errors that bad input raises.

::

    ZoobotError
     ├── SchemaError       a decision tree that cannot be read or makes no sense
     ├── CatalogError      a table of galaxies with faults
     ├── ImageError        an image that cannot be read
     ├── ShardError        shards that are torn, corrupt or do not fit the request
     ├── ModelError        a model folder, an encoder or sizes that cannot be used
     ├── TrainingError     training that cannot start or go on
     ├── PredictionError   predictions that cannot be made, written or scored
     └── SettingError      an argument outside what it may be (also a ``ValueError``)

Each message names the argument, what it got, what was expected and what to do about it.
The command line prints it in a line or two and exits with 2.
"""

__all__ = [
    "CatalogError",
    "ImageError",
    "ModelError",
    "PredictionError",
    "SchemaError",
    "SettingError",
    "ShardError",
    "TrainingError",
    "ZoobotError",
]


class ZoobotError(Exception):
    """Base of every error that is the input's fault and not a bug."""


class SchemaError(ZoobotError):
    """A decision tree cannot be read or makes no sense."""


class CatalogError(ZoobotError):
    """A table of galaxies has faults; the message lists them all."""


class ImageError(ZoobotError):
    """An image cannot be read; the message names its path."""


class ShardError(ZoobotError):
    """Shards are torn, corrupt, or do not fit what was asked of them."""


class ModelError(ZoobotError):
    """A model folder, an encoder or a model's sizes cannot be used."""


class TrainingError(ZoobotError):
    """Training cannot start or cannot go on."""


class PredictionError(ZoobotError):
    """Predictions cannot be made, written or scored."""


class SettingError(ZoobotError, ValueError):
    """An argument is outside what it may be."""
