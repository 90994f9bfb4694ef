"""Pictures of FITS images in several stretches, to choose one by eye."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoobot.data import images
from zoobot.data.catalog import read_catalog, sample_catalog
from zoobot.data.contact_sheet import draw_contact_sheet
from zoobot.data.fits_images import FitsConfig, FitsLayout, read_bands
from zoobot.data.stretch import STRETCHES, parse_stretch
from zoobot.errors import ImageError, SettingError
from zoobot.files import replace_atomically

__all__ = ["preview_stretches"]

_ENCODINGS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_PAGE_SIZE = 300  # pixels of each image on a page
_LINE = 36  # letters above an image


def preview_stretches(
    save_loc: str | Path,
    file_locs: Sequence[str],
    stretches: Sequence[str] = (),
    *,
    catalog: str | Path | None = None,
    image_root: str | Path | None = None,
    count: int = 8,
    size: int | None = None,
    seed: int = 0,
    layout: FitsLayout | None = None,
) -> list[str]:
    """Draw images in stretches: one by one as it is, more as a page with a row for each image.

    Args:
        save_loc: picture to write; the suffix says how.
        file_locs: FITS files, or sections of them.
        stretches: as :func:`zoobot.data.stretch.parse_stretch` takes them; when left out all that have a name, save
            those with scales for three bands if an image is of one.
        catalog: table to draw images from at random, instead of ``file_locs``.
        image_root: the folder that relative ``file_loc`` of the catalog start from.
        count: how many images of the catalog.
        size: side of each image in pixels.
        seed: what decides which images of the catalog.
        layout: where the fluxes are.

    Returns:
        A line for each image: its bad pixels, and percentiles of its fluxes.

    Raises:
        SettingError: a stretch or suffix is not known, or there are no images.
        CatalogError: the catalog has faults.
        ImageError: an image cannot be read.
    """
    save_loc = Path(save_loc)
    if save_loc.suffix.lower() not in _ENCODINGS:
        raise SettingError(f"save_loc: got {save_loc}, expected a name that ends with {', '.join(_ENCODINGS)}")
    if count < 1:
        raise SettingError(f"count: got {count}, expected at least 1 image of the catalog")
    parsed = {text: parse_stretch(text) for text in stretches or STRETCHES}
    layout = layout or FitsLayout()
    if catalog is not None:
        chosen = sample_catalog(
            read_catalog(catalog, bands=layout.bands, image_root=image_root, check_files=False), count, seed
        )
        file_locs = [*file_locs, *chosen["file_loc"]]
    if not file_locs:
        raise SettingError("images: got none, expected FITS files, or a catalog of them (--catalog)")
    described = [_describe(file, layout) for file in file_locs]
    if not stretches and any(bands == 1 for bands, _ in described):
        parsed = {text: stretch for text, stretch in parsed.items() if len(stretch.scales) == 1}
    single = len(file_locs) == len(parsed) == 1
    side = _PAGE_SIZE if size is None and not single else size
    configs = {text: FitsConfig(layout, stretch) for text, stretch in parsed.items()}
    pictures = [images.read_image(file, size=side, fits=config) for file in file_locs for config in configs.values()]
    with replace_atomically(save_loc) as path:
        if single:
            path.write_bytes(images.encode_image(pictures[0], _ENCODINGS[save_loc.suffix.lower()]))
        else:
            labels = [_label(Path(file).name, text) for file in file_locs for text in configs]
            page = draw_contact_sheet(pictures, labels, columns=len(configs), inches=2.2)
            page.savefig(path, format=_ENCODINGS[save_loc.suffix.lower()], dpi=150)
    return [line for _, line in described]


def _label(name: str, stretch: str) -> str:
    """The end of a file's name, and below it the stretch, in lines that end where a setting does, if they can."""
    settings = textwrap.wrap(stretch.replace(",", ", "), _LINE)
    return "\n".join([name[-_LINE:], *(line.replace(", ", ",") for line in settings)])


def _describe(file_loc: str, layout: FitsLayout) -> tuple[int, str]:
    """How many bands it has, and a line about them."""
    try:
        bands = read_bands(file_loc, layout)
    except ImageError:  # a PNG among them; what cannot be read at all is found when it is drawn
        return 0, f"{file_loc}: no FITS"
    bad = int(np.isnan(bands).any(axis=0).sum())
    percentiles = [
        "/".join(f"{value:.3g}" for value in np.nanpercentile(band, (1, 50, 99))) if np.isfinite(band).any() else "none"
        for band in bands
    ]
    names = ("red", "green", "blue") if len(bands) == 3 else ("flux",)
    told = ", ".join(f"{name} {each}" for name, each in zip(names, percentiles, strict=True))
    return len(bands), f"{file_loc}: {bad:,} bad pixels; 1/50/99% of the fluxes: {told}"
