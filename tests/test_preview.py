"""Pages of stretches: what is on them, what is said of the images, and what cannot be drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.figure import Figure

from zoobot.cli.fits_options import parse_hdu
from zoobot.data import images, preview
from zoobot.data.contact_sheet import draw_contact_sheet
from zoobot.data.fits_images import FitsConfig, FitsLayout
from zoobot.data.stretch import STRETCHES
from zoobot.errors import ImageError, SettingError


@pytest.fixture
def cube(tmp_path: Path) -> str:
    values = np.random.default_rng(0).normal(1, 0.1, (3, 20, 20)).astype(np.float32)
    values[1, 3, :5] = np.nan
    fits.writeto(tmp_path / "cube.fits", values)
    return str(tmp_path / "cube.fits")


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The labels of the pages that are drawn."""
    labels: list[list[str]] = []

    def draw(pictures: list[Any], texts: list[str], **settings: Any) -> Figure:
        labels.append(texts)
        return draw_contact_sheet(pictures, texts, **settings)

    monkeypatch.setattr(preview, "draw_contact_sheet", draw)
    return labels


def test_one_image_in_one_stretch_is_as_a_model_sees_it(cube: str, tmp_path: Path) -> None:
    [line] = preview.preview_stretches(tmp_path / "p.png", [cube], ["decals"])
    expected = images.read_image(cube, fits=FitsConfig(stretch=STRETCHES["decals"]))
    np.testing.assert_array_equal(images.read_image(tmp_path / "p.png"), expected)
    assert line.startswith(f"{cube}: 5 bad pixels; 1/50/99% of the fluxes: red 0.")


def test_a_page_has_the_stretches_that_fit_the_bands(cube: str, tmp_path: Path, sheets: list[list[str]]) -> None:
    preview.preview_stretches(tmp_path / "p.png", [cube, cube])
    preview.preview_stretches(tmp_path / "p.png", [cube], layout=FitsLayout(bands=("1",)))
    assert sheets == [
        [f"cube.fits\n{name}" for name in STRETCHES] * 2,
        [f"cube.fits\n{name}" for name, stretch in STRETCHES.items() if len(stretch.scales) == 1],
    ]
    with pytest.raises(SettingError, match="scales for 3 bands"):
        preview.preview_stretches(tmp_path / "p.png", [cube], ["decals"], layout=FitsLayout(bands=("1",)))


def test_labels_stay_above_their_images(cube: str, tmp_path: Path) -> None:
    long = "decals:" + ",".join(f"upper={number}" for number in range(100, 120))
    texts = [preview._label("a, b" * 30 + ".fits", long), "short"]
    assert texts[0].partition("\n")[2].replace("\n", "") == long
    figure = draw_contact_sheet([np.zeros((30, 30, 3), np.uint8)] * 4, texts * 2, columns=2, inches=2.2)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    for axes, box, other in zip(figure.axes, boxes, [*boxes[1:], boxes[0]], strict=True):
        assert axes.bbox.y1 < box.y0 + 1e-6
        assert box.y1 < figure.bbox.y1 + 1e-6
        assert not box.overlaps(other)
    assert boxes[2].y1 <= figure.axes[0].bbox.y0  # below the first row


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size: got 0"),
        ({"count": 0}, "count: got 0"),
        ({"save_loc": "p.gif"}, "save_loc: got p.gif"),
        ({"file_locs": []}, "images: got none"),
        ({"stretches": ["loud"]}, "got 'loud', expected one of"),
    ],
)
def test_what_cannot_be_drawn(cube: str, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        preview.preview_stretches(**{"save_loc": tmp_path / "p.png", "file_locs": [cube], **settings})
    with pytest.raises(ImageError, match=r"absent\.fits: No such file"):
        preview.preview_stretches(tmp_path / "p.png", [cube, str(tmp_path / "absent.fits")])
    assert not (tmp_path / "p.png").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("2", 2), ("SCI", "SCI"), (None, None), ("9" * 5000, "9" * 5000), ("²", "²")]
)
def test_extensions_are_numbers_or_names(text: str | None, expected: int | str | None) -> None:
    assert parse_hdu(text) == expected
