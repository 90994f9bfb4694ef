"""Zoobot: galaxy morphology from volunteers' votes."""

from importlib.metadata import version

__all__ = ["__version__"]
__version__ = version("zoobot")
