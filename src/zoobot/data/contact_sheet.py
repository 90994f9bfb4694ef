"""Many small images on one page, to choose and check by eye."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoobot.errors import SettingError

__all__ = ["draw_contact_sheet"]


def draw_contact_sheet(
    images: Sequence[NDArray[np.uint8]], labels: Sequence[str], columns: int = 10, inches: float = 1.1
) -> Figure:
    """Draw images row by row, each with its label above it.

    Args:
        images: each (height, width, 3) or (height, width, 1).
        labels: one for each, of one line or several.
        columns: how many side by side.
        inches: width of each.

    Raises:
        SettingError: there are no images, or not one label for each.
    """
    if not images or len(images) != len(labels) or columns < 1:
        raise SettingError(f"images: got {len(images)} with {len(labels)} labels; expected some, each with its label")
    rows = -(-len(images) // columns)
    above = 0.04 + 0.11 * max(label.count("\n") + 1 for label in labels)  # inches, for the labels
    height = (inches + above) * rows
    figure = Figure(figsize=(inches * columns, height), facecolor="black")
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": 0.004,
            "right": 0.996,
            "bottom": 0.002,
            "top": 1 - above / height,
            "wspace": 0.04,
            "hspace": above / inches,
        },
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, label in zip(grid.flat, images, labels, strict=False):
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(label, color="white", fontsize=7, pad=2)
    return figure
