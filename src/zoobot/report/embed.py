"""Figures and images as text inside an HTML page, so that the page needs no other file."""

import base64
import io
import re
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zoobot.data.images import encode_image
from zoobot.report.plots import COLOURS

__all__ = ["embed_figure", "embed_image"]

# What figures not of this package are drawn in.
_SHADES = {
    **{colour: name for name, colour in COLOURS.items()},
    "#000000": "ink",
    "#ffffff": "paper",
    "#cccccc": "rule",
}
_PIXELS_PER_INCH = 96  # of CSS


def embed_figure(figure: Figure, description: str) -> str:
    """Turn a figure into an SVG element whose known colours are the page's (``var(--model)`` and so on).

    Text stays text, in the page's font. The description is for readers who do not see the figure, and no two
    figures of a page share one: what their parts are called, so that they can refer to each other, depends on it.
    """
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):  # equal figures, equal bytes
        figure.savefig(file, format="svg", metadata=no_metadata)
    svg = file.getvalue()
    view_box = re.search(r'viewBox="([^"]*)"', svg)
    drawing = svg[svg.index("<defs>") :]
    drawing = re.sub(r'<style type="text/css">.*?</style>|<!--.*?-->| id="[A-Za-z0-9.]+_\d{1,4}"', "", drawing)
    drawing = re.sub(r"<[^>]*>", lambda tag: _shorten(tag[0]), drawing)  # and not the words between tags
    drawing = re.sub(r"\s*\n\s*", " ", drawing)
    sizes = (
        f'viewBox="{view_box[1] if view_box else ""}" style="width:{figure.get_figwidth() * _PIXELS_PER_INCH:.0f}px"'
    )
    return f'<svg {sizes} role="img" aria-label="{escape(description)}">{drawing}'


def embed_image(pixels: NDArray[np.uint8]) -> str:
    """Turn pixels, (height, width, 1 or 3), into a JPEG as a data URI."""
    encoded = base64.b64encode(encode_image(pixels, "jpeg", quality=88)).decode()
    return f"data:image/jpeg;base64,{encoded}"


def _shorten(tag: str) -> str:
    tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda colour: _shade(colour[0]), tag)


def _shade(colour: str) -> str:
    name = _SHADES.get(colour.lower())
    return f"var(--{name})" if name else colour
