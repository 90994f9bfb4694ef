"""Sizes beyond which input is refused before memory is taken for it."""

__all__ = ["MAX_PIXELS"]

MAX_PIXELS = 2**26
"""An image with more pixels than 8192² is refused by its header: no cutout is that large, a bomb may be."""
