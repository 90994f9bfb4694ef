"""Cutouts: galaxies lie in the middle, north is up, flux is kept, pixels are copied, and nothing is dropped."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, Sip
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from zoobot.cli import cutouts as cli
from zoobot.cutouts import making as module
from zoobot.cutouts.making import CutoutConfig, cutout_locations, make_cutouts
from zoobot.cutouts.mosaics import open_mosaic
from zoobot.data.fits_images import read_bands
from zoobot.errors import CatalogError, ImageError, SettingError

SCALE = 0.3  # arcsec
SIZE = 400  # pixels of the mosaic
SIGMA = 2.5  # of the sources, in pixels
FLUX = 1000.0
Pixels = NDArray[np.float64]


def make_wcs(angle: float = 30.0, distortion: float = 2e-6, centre: tuple[float, float] = (150.0, 2.0)) -> WCS:
    """Turned by an angle, with a scale that changes over the image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if distortion else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [SIZE / 2 + 0.3, SIZE / 2 - 11.7]
    turn = np.radians(angle)
    wcs.wcs.cd = SCALE / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if distortion:
        terms = np.zeros((3, 3))
        terms[2, 0], terms[1, 1] = distortion, -distortion
        wcs.sip = Sip(terms, terms.T.copy(), None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def draw(x: Any, y: Any, shape: tuple[int, int] = (SIZE, SIZE), sigma: float = SIGMA) -> NDArray[np.float32]:
    """Round sources at columns and rows, counted from 0; never quite 0, which would be a bad pixel."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    light = np.full(shape, 1e-12)
    for each_x, each_y in zip(np.ravel(x), np.ravel(y), strict=True):
        light += np.exp(-0.5 * ((columns - each_x) ** 2 + (rows - each_y) ** 2) / sigma**2)
    return (FLUX / (2 * np.pi * sigma**2) * light).astype(np.float32)


X = np.array([60.2, 199.37, 330.81, 310.4, 90.49])
Y = np.array([70.1, 200.21, 90.66, 320.3, 330.05])


def make_mosaic(path: Path, pixels: NDArray[Any], wcs: WCS, **cards: Any) -> Path:
    header = wcs.to_header(relax=True)
    header.update(cards)
    fits.writeto(path, pixels, header)
    return path


def make_catalog(path: Path, wcs: WCS, x: Any = X, y: Any = Y, **columns: Any) -> Path:
    sky = wcs.pixel_to_world(np.asarray(x, float), np.asarray(y, float)).icrs
    ids = [f"J{number}" for number in range(len(np.ravel(x)))]
    pd.DataFrame({"id_str": ids, "ra": sky.ra.deg, "dec": sky.dec.deg, **columns}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mosaic with sources, and their catalog."""
    folder, wcs = tmp_path_factory.mktemp("sky"), make_wcs()
    mosaic = make_mosaic(folder / "mosaic.fits", draw(X, Y), wcs, BUNIT="nanomaggy", MAGZERO=22.5)
    return mosaic, make_catalog(folder / "sources.csv", wcs, smooth=[3, 1, 4, 1, 5], r90=[3.0, 4.0, 5.0, 3.0, 2.0])


def cut(sky: tuple[Path, Path], folder: Path, **settings: Any) -> dict[str, tuple[NDArray[Any], WCS]]:
    made = make_cutouts(sky[0], sky[1], folder, CutoutConfig(**settings), workers=1)
    catalog = pd.read_csv(made.catalog, dtype={"id_str": str})
    result = {}
    for id_str, file_loc in zip(catalog["id_str"], catalog["file_loc"], strict=True):
        with fits.open(folder / file_loc) as hdus:
            result[id_str] = (np.array(hdus[0].data), WCS(hdus[0].header, naxis=2))
    return result


def centroid(pixels: NDArray[Any]) -> Pixels:
    rows, columns = np.indices(pixels.shape)
    light = np.asarray(pixels, np.float64)
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize("side", [48, 49])
@pytest.mark.parametrize(("align", "within"), [("pixels", 0.5), ("centre", 0.02), ("north", 0.02)])
def test_galaxies_lie_in_the_middle_where_the_wcs_says_with_all_their_flux(
    sky: tuple[Path, Path], tmp_path: Path, align: str, within: float, side: int
) -> None:
    catalog = pd.read_csv(sky[1])
    for row, (pixels, wcs) in enumerate(cut(sky, tmp_path / "c", size_pixels=side, align=align).values()):
        assert pixels.shape == (side, side)
        assert pixels.dtype.newbyteorder("=") == np.float32
        middle = centroid(pixels)
        assert np.abs(middle - (side - 1) / 2).max() <= within + 1e-3
        told = wcs.world_to_pixel(SkyCoord(catalog["ra"][row], catalog["dec"][row], unit="deg"))
        assert np.abs(middle - told).max() < 0.01
        assert pixels.sum() == pytest.approx(FLUX, rel=0.005)


def test_pixels_are_copied_bit_by_bit(sky: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = fits.getdata(sky[0])
    for row, (found, _) in enumerate(cut(sky, tmp_path / "c", size_arcsec=12.1).values()):
        side = len(found)
        left, bottom = (int(np.rint(each[row] - (side - 1) / 2)) for each in (X, Y))
        assert np.array_equal(found, pixels[bottom : bottom + side, left : left + side])
        assert side == pytest.approx(12.1 / SCALE, abs=1)


@pytest.mark.parametrize("centre", [(150.0, 2.0), (0.001, -45.0), (200.0, 89.999)])
def test_north_is_up_and_east_is_left(tmp_path: Path, centre: tuple[float, float]) -> None:
    wcs = make_wcs(angle=130.0, centre=centre)
    galaxy = wcs.pixel_to_world(200.3, 210.8)
    north, east = (galaxy.directional_offset_by(angle * units.deg, 5 * units.arcsec) for angle in (0, 90))
    for name, neighbour, towards in (("n", north, (0, 1)), ("e", east, (-1, 0))):
        mosaic = make_mosaic(tmp_path / f"{name}.fits", draw(*wcs.world_to_pixel(neighbour)), wcs)
        catalog = make_catalog(tmp_path / f"{name}.csv", wcs, [200.3], [210.8])
        [(pixels, told)] = cut((mosaic, catalog), tmp_path / name, size_pixels=80, align="north").values()
        scale = told.proj_plane_pixel_scales()[0].to_value("arcsec")
        assert scale == pytest.approx(SCALE, rel=0.01)
        assert centroid(pixels) - 39.5 == pytest.approx(np.array(towards) * 5 / scale, abs=0.02)


def test_another_scale_keeps_the_flux_or_the_brightness(sky: tuple[Path, Path], tmp_path: Path) -> None:
    for side, scale in ((30, 0.8), (120, 0.2)):
        found = cut(sky, tmp_path / f"c{side}", size_arcsec=24.0, size_pixels=side, align="north")
        for pixels, wcs in found.values():
            assert pixels.shape == (side, side)
            assert wcs.proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(scale)
            assert pixels.sum() == pytest.approx(FLUX, rel=0.01)
            assert centroid(pixels) == pytest.approx([(side - 1) / 2] * 2, abs=0.02)
    flat = make_mosaic(tmp_path / "flat.fits", np.full((SIZE, SIZE), 3.0, np.float32), make_wcs(), BUNIT="MJy/sr")
    for pixels, _ in cut((flat, sky[1]), tmp_path / "flat", size_arcsec=24.0, size_pixels=30, align="north").values():
        assert pixels == pytest.approx(3.0, rel=1e-6)


def test_sizes_follow_a_column_of_radii(sky: tuple[Path, Path], tmp_path: Path) -> None:
    found = cut(sky, tmp_path / "c", radius_column="r90", radius_factor=2.0)
    for radius, (pixels, _) in zip([3.0, 4.0, 5.0, 3.0, 2.0], found.values(), strict=True):
        assert len(pixels) == pytest.approx(4 * radius / SCALE, abs=1)
    same = cut(sky, tmp_path / "n", radius_column="r90", size_pixels=32, align="north")
    assert {pixels.shape for pixels, _ in same.values()} == {(32, 32)}


@pytest.mark.parametrize("align", ["pixels", "centre", "north"])
def test_beyond_the_edge_is_nan_and_counted(tmp_path: Path, align: str) -> None:
    wcs = make_wcs(angle=0.0, distortion=0.0)
    mosaic = make_mosaic(tmp_path / "m.fits", draw(X, Y) + 1, wcs)
    catalog = make_catalog(tmp_path / "s.csv", wcs, [5.0, 200.0, 399.4, 402.0], [200.0, 200.0, 0.0, 200.0])
    pixels = [each for each, _ in cut((mosaic, catalog), tmp_path / "c", size_pixels=41, align=align).values()]
    table = pd.read_csv(tmp_path / "c" / "catalog.csv")
    assert table["id_str"].tolist() == ["J0", "J1", "J2"]
    assert pd.read_csv(tmp_path / "c" / "cutouts.failed.csv").to_dict("list") == {
        "id_str": ["J3"],
        "reason": ["it lies outside of the mosaics"],
    }
    for each, share in zip(pixels, table["share_covered"], strict=True):
        assert np.isfinite(each).mean() == pytest.approx(share, abs=1e-6)
    assert table["share_covered"].tolist() == pytest.approx([26 / 41, 1, 21 * 21 / 41**2], abs=0.03)
    assert np.isnan(pixels[0][:, :14]).all()
    assert np.isfinite(pixels[0][:, 16:]).all()


@pytest.mark.parametrize("align", ["centre", "north"])
@pytest.mark.parametrize("bad", [np.nan, 0.0, np.inf, -1.6e38])
def test_bad_pixels_spoil_only_their_neighbours(sky: tuple[Path, Path], tmp_path: Path, align: str, bad: float) -> None:
    pixels = draw(X, Y) + np.float32(1)
    good = make_mosaic(tmp_path / "good.fits", pixels, make_wcs())
    pixels[210:213, 190:194] = bad
    spoilt = make_mosaic(tmp_path / "bad.fits", pixels, make_wcs())
    expected, _ = cut((good, sky[1]), tmp_path / "g", size_pixels=60, align=align)["J1"]
    found, _ = cut((spoilt, sky[1]), tmp_path / "b", size_pixels=60, align=align)["J1"]
    holes = np.isnan(found)
    assert 8 <= holes.sum() <= 16
    rows, columns = np.nonzero(holes)
    near = np.zeros_like(holes)
    near[rows.min() - 3 : rows.max() + 4, columns.min() - 3 : columns.max() + 4] = True
    assert found[~near] == pytest.approx(expected[~near], rel=0.01)
    assert found[~holes] == pytest.approx(expected[~holes], rel=0.3)


def test_zeros_may_be_good(sky: tuple[Path, Path], tmp_path: Path) -> None:
    counts = make_mosaic(tmp_path / "m.fits", np.where(draw(X, Y) > 1, draw(X, Y), 0).astype(np.float32), make_wcs())
    found = cut((counts, sky[1]), tmp_path / "c", size_pixels=60, align="centre", zeros_are_bad=False)
    assert all(np.isfinite(pixels).all() for pixels, _ in found.values())


def test_all_planes_and_what_the_header_says_are_kept(sky: tuple[Path, Path], tmp_path: Path) -> None:
    light = draw(X, Y)
    cube = fits.ImageHDU(np.stack([light, 2 * light, 3 * light]), make_wcs().to_header(relax=True), name="SCI")
    primary = fits.PrimaryHDU()
    primary.header["BANDS"] = "grz"
    fits.HDUList([primary, fits.ImageHDU(np.zeros((9, 9)), name="OTHER"), cube]).writeto(tmp_path / "m.fits")
    for align in ("pixels", "north"):
        for row, (pixels, wcs) in enumerate(
            cut((tmp_path / "m.fits", sky[1]), tmp_path / align, size_pixels=48, align=align, hdu="SCI").values()
        ):
            assert pixels.shape == (3, 48, 48)
            assert pixels[2].sum() == pytest.approx(3 * FLUX, rel=0.01)
            assert (
                wcs.pixel_to_world(*centroid(pixels[1])).separation(make_wcs().pixel_to_world(X[row], Y[row])).arcsec
                < 0.01
            )
        assert fits.getheader(tmp_path / align / "images" / "J1.fits")["BANDS"] == "grz"
    header = fits.getheader(cut_one(sky, tmp_path / "one"))
    assert (header["BUNIT"], header["MAGZERO"]) == ("nanomaggy", 22.5)


def cut_one(sky: tuple[Path, Path], folder: Path) -> Path:
    cut(sky, folder, size_pixels=16)
    return folder / "images" / "J0.fits"


@pytest.mark.parametrize("kind", ["int16", "uint16", "compressed", "compressed int16", "compressed rows", "float64"])
def test_pixels_of_every_kind_are_scaled_and_blanks_are_nan(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).integers(1, 30000, (SIZE, SIZE))
    header = make_wcs().to_header(relax=True)
    expected = values.astype(np.float32)
    if kind == "uint16":
        hdu = fits.PrimaryHDU((values + 20000).astype(np.uint16), header)
        expected = expected + 20000
    elif kind == "int16":
        hdu = fits.PrimaryHDU(values.astype(np.int16), header)
        hdu.header["BLANK"] = int(values[200, 200])
        expected[values == values[200, 200]] = np.nan
    elif kind.startswith("compressed"):
        whole = values.astype(np.int16 if "int16" in kind else np.float32)
        tiles = (1, SIZE) if "rows" in kind else (50, 50)
        hdu = fits.CompImageHDU(whole, header, quantize_level=0, compression_type="GZIP_2", tile_shape=tiles)
    else:
        hdu = fits.PrimaryHDU(values.astype(np.float64), header)
    path = tmp_path / ("m.fits.fz" if "compressed" in kind else "m.fits")
    fits.HDUList([hdu] if isinstance(hdu, fits.PrimaryHDU) else [fits.PrimaryHDU(), hdu]).writeto(path)
    catalog = make_catalog(tmp_path / "s.csv", make_wcs(), [200.2], [199.7])
    [(pixels, _)] = cut((path, catalog), tmp_path / "c", size_pixels=31).values()
    assert np.array_equal(pixels, expected[185:216, 185:216], equal_nan=True)


def test_the_tile_that_covers_most_is_taken(tmp_path: Path) -> None:
    whole, wcs = draw(X, Y), make_wcs(angle=0, distortion=0)
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for name, (first, last) in {"a": (0, 220), "b": (190, 400)}.items():
        part = wcs[:, first:last]
        make_mosaic(tiles / f"{name}.fits", whole[:, first:last].copy(), part)
    (tiles / "notes.txt").touch()
    catalog = make_catalog(tmp_path / "s.csv", wcs, [195.2, 215.4, 60.0, 399.0], [200.0] * 4)
    for number, mosaics in enumerate((tiles, str(tiles / "*.fits"), [tiles / "b.fits", tiles / "a.fits"])):
        config = CutoutConfig(size_pixels=30, files=False)
        made = make_cutouts(mosaics, catalog, tmp_path / f"c{number}", config)
        table = pd.read_csv(made.catalog)
        assert [Path(file_loc).name[0] for file_loc in table["file_loc"]] == ["a", "b", "a", "b"]
        assert table["share_covered"].tolist()[:3] == [1, 1, 1]


def test_locations_name_the_pixels_that_would_be_copied(sky: tuple[Path, Path], tmp_path: Path) -> None:
    mosaic = make_mosaic(tmp_path / "m.fits", draw(X, Y) + np.float32(1), make_wcs())
    catalog = pd.read_csv(sky[1])
    sky_edge = make_wcs().pixel_to_world(2.0, 398.0)
    catalog.loc[0, ["ra", "dec"]] = [sky_edge.ra.deg, sky_edge.dec.deg]
    catalog.loc[4, ["ra", "dec"]] = [10.0, -20.0]
    located, failed = cutout_locations(mosaic, catalog, CutoutConfig(size_pixels=20))
    catalog.to_csv(tmp_path / "s.csv", index=False)
    written = cut((mosaic, tmp_path / "s.csv"), tmp_path / "c", size_pixels=20)
    assert failed["id_str"].tolist() == ["J4"]
    assert located["smooth"].tolist() == [3, 1, 4, 1]
    assert located["file_loc"][1] == f"{mosaic}[191:210,192:211]"
    for row, (pixels, _) in enumerate(written.values()):
        assert np.array_equal(read_bands(located["file_loc"][row])[0], pixels, equal_nan=True)
    assert located["share_covered"][0] < 0.5
    with pytest.raises(SettingError, match="expected pixels"):
        cutout_locations(sky[0], catalog, CutoutConfig(size_pixels=20, align="north"))


def test_positions_are_icrs_whatever_the_mosaics_frame(tmp_path: Path) -> None:
    wcs = make_wcs(distortion=0)
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    wcs.wcs.set()
    mosaic = make_mosaic(tmp_path / "m.fits", draw(X, Y), wcs)
    catalog = make_catalog(tmp_path / "s.csv", wcs)
    for pixels, told in cut((mosaic, catalog), tmp_path / "c", size_pixels=49, align="north").values():
        assert centroid(pixels) == pytest.approx([24, 24], abs=0.02)
        assert told.wcs.ctype[0] == "RA---TAN"


def test_it_goes_on_where_it_stopped(sky: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIXELS_A_PART", 1)
    config = CutoutConfig(size_pixels=20)
    written: list[str] = []
    original = module._write_fits

    def stop_at_third(path: Path, cutout: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, cutout)

    monkeypatch.setattr(module, "_write_fits", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        make_cutouts(*sky, tmp_path / "c", config, workers=1)
    assert not (tmp_path / "c" / "catalog.csv").exists()
    monkeypatch.setattr(module, "_write_fits", lambda path, cutout: (written.append(path.name), original(path, cutout)))
    made = make_cutouts(*sky, tmp_path / "c", config, workers=1)
    assert sorted(written) == [f"J{number}.fits" for number in range(5)]  # none twice
    assert (made.galaxies, made.failed, made.failed_loc) == (5, 0, None)
    assert make_cutouts(*sky, tmp_path / "c", config, workers=1) == made
    assert len(written) == 5
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"images", "catalog.csv", "cutouts.json"}
    with pytest.raises(SettingError, match="made with another size_pixels"):
        make_cutouts(*sky, tmp_path / "c", replace(config, size_pixels=21))
    make_cutouts(*sky, tmp_path / "c", replace(config, size_pixels=21), workers=1, overwrite=True)
    assert json.loads((tmp_path / "c" / "cutouts.json").read_text())["size_pixels"] == 21


@pytest.mark.slow
def test_processes_give_the_same(sky: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIXELS_A_PART", 1)
    config = CutoutConfig(size_pixels=20, align="north")
    for workers in (1, 2):
        make_cutouts(*sky, tmp_path / f"c{workers}", config, workers=workers)
    for path in (tmp_path / "c1").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "c2" / path.relative_to(tmp_path / "c1")).read_bytes()


@given(st.lists(st.text(min_size=1, max_size=150), unique=True, max_size=20))
def test_file_names_are_safe_and_no_two_alike(ids: list[str]) -> None:
    names = module._name_files(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    assert all(set(name) <= set(map(chr, range(33, 127))) - set('/\\:*?"<>|') for name in names)
    assert all(len(name) < 150 and name[0] != "." for name in names)


def test_strange_names_get_files_of_their_own(sky: tuple[Path, Path], tmp_path: Path) -> None:
    ids = ["../a", "J1", "j1", "a b,é", "J100512.3+021455"]
    table = pd.read_csv(sky[1]).assign(id_str=ids)
    table.to_csv(tmp_path / "s.csv", index=False)
    assert list(cut((sky[0], tmp_path / "s.csv"), tmp_path / "c", size_pixels=9)) == ids
    names = sorted(path.name for path in (tmp_path / "c" / "images").iterdir())
    assert len(names) == 5
    assert "J100512.3+021455.fits" in names


def test_what_cannot_be_cut_is_listed(sky: tuple[Path, Path], tmp_path: Path) -> None:
    radii = ["", -1, 1e6, 0.01, 4]
    pd.read_csv(sky[1]).assign(r90=radii).to_csv(tmp_path / "s.csv", index=False)
    assert list(cut((sky[0], tmp_path / "s.csv"), tmp_path / "c", radius_column="r90")) == ["J4"]
    reasons = pd.read_csv(tmp_path / "c" / "cutouts.failed.csv")["reason"].tolist()
    assert reasons[:2] == ["its r90 is no radius: missing, 0 or less"] * 2
    assert "pixels wide, expected 1 to 8192" in reasons[2]
    assert "would be 0 pixels wide" in reasons[3]


def test_blank_skies_and_broken_tiles_are_listed(sky: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = draw(X, Y)
    pixels[:150] = 0
    mosaic = make_mosaic(tmp_path / "m.fits", pixels, make_wcs())
    assert list(cut((mosaic, sky[1]), tmp_path / "c", size_pixels=20)) == ["J1", "J3", "J4"]
    failed = pd.read_csv(tmp_path / "c" / "cutouts.failed.csv")
    assert failed["reason"].tolist() == ["the mosaic m.fits has no good pixel there"] * 2
    noisy = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(noisy, make_wcs().to_header(relax=True))])
    hdus.writeto(tmp_path / "m.fits.fz")
    content = bytearray((tmp_path / "m.fits.fz").read_bytes())
    content[-len(content) // 3 :] = b"\xff" * (len(content) // 3)
    (tmp_path / "m.fits.fz").write_bytes(content)
    found = cut((tmp_path / "m.fits.fz", sky[1]), tmp_path / "z", size_pixels=20)
    assert 0 < len(found) < 5


def spoil(frame: pd.DataFrame, how: str) -> pd.DataFrame:
    if how == "duplicate":
        return frame.assign(id_str="J0")
    if how == "no ra":
        return frame.rename(columns={"ra": "RA"})
    column, value = how.split("=")
    return frame.assign(**{column: [*frame[column].astype(object)[:4], value]})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("duplicate", "id_str"),
        ("no ra", "missing columns: ra; it has id_str, RA"),
        ("ra=400", r"ra: 1 wrong \(first row 5: 400.0\); expected 0 to 360 degrees"),
        ("dec=-91", "dec: 1 wrong"),
        ("dec=", "dec: 1 wrong"),
        ("ra=10:02:03", "ra: 1 wrong"),
        ("dec=inf", "dec: 1 wrong"),
    ],
)
def test_faulty_catalogs_are_refused(sky: tuple[Path, Path], tmp_path: Path, how: str, message: str) -> None:
    spoil(pd.read_csv(sky[1]), how).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(CatalogError, match=message):
        make_cutouts(sky[0], tmp_path / "s.csv", tmp_path / "c", CutoutConfig(size_pixels=9))


def break_mosaic(folder: Path, how: str) -> Path:
    path = folder / "broken.fits"
    wcs, pixels = make_wcs(), draw([], [])
    if how == "no wcs":
        fits.writeto(path, pixels)
    elif how == "not of the sky":
        fits.writeto(path, pixels, fits.Header({"CTYPE1": "WAVE", "CTYPE2": "STOKES"}))
    elif how == "nonsense":
        fits.writeto(path, pixels, fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": 0.0}))
    elif how == "truncated":
        make_mosaic(path, pixels, wcs)
        path.write_bytes(path.read_bytes()[:300_000])
    elif how == "no image":
        fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    elif how == "gzipped":
        path = make_mosaic(folder / "broken.fits.gz", pixels, wcs)
    elif how == "no fits":
        path.write_bytes(b"hello, world")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no wcs", "its WCS is missing; expected axes 1 and 2 to be on the sky"),
        ("not of the sky", "its WCS is of WAVE and STOKES"),
        ("nonsense", "cannot read mosaic"),
        ("truncated", "it is truncated"),
        ("no image", "it has no extension with an image"),
        ("gzipped", "gunzip"),
        ("no fits", "it is no FITS file"),
        ("missing", "is no file, folder with .fits, .fit, .fz, or pattern"),
    ],
)
def test_faulty_mosaics_are_refused(sky: tuple[Path, Path], tmp_path: Path, how: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        make_cutouts(break_mosaic(tmp_path, how), sky[1], tmp_path / "c", CutoutConfig(size_pixels=9))


@pytest.mark.parametrize("hdu", [3, "SCI"])
def test_a_missing_extension_is_told(sky: tuple[Path, Path], tmp_path: Path, hdu: int | str) -> None:
    with pytest.raises(ImageError, match=rf"the extension {hdu} was looked for\); it has 0 PRIMARY"):
        make_cutouts(*sky, tmp_path / "c", CutoutConfig(size_pixels=9, hdu=hdu))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected one of size_arcsec"),
        ({"size_arcsec": 3, "radius_column": "r"}, "expected one of size_arcsec"),
        ({"size_arcsec": 0}, "size_arcsec: got 0"),
        ({"size_arcsec": float("nan")}, "size_arcsec: got nan"),
        ({"size_pixels": 0}, "size_pixels: got 0, expected 1 to 8192"),
        ({"size_pixels": 8193}, "size_pixels: got 8193"),
        ({"size_pixels": 9, "size_arcsec": 3}, "needs align north"),
        ({"size_pixels": 9, "align": "up"}, "align: got 'up'"),
        ({"size_pixels": 9, "align": "north", "files": False}, "without files only pixels"),
        ({"radius_column": "r", "radius_factor": -1}, "radius_factor"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CutoutConfig(**settings)


def test_no_galaxy_on_the_mosaics_is_an_error_and_lists_them(sky: tuple[Path, Path], tmp_path: Path) -> None:
    pd.read_csv(sky[1]).assign(dec=-2.0).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(CatalogError, match="not one of 5 galaxies has a cutout"):
        make_cutouts(sky[0], tmp_path / "s.csv", tmp_path / "c", CutoutConfig(size_pixels=9))
    assert len(pd.read_csv(tmp_path / "c" / "cutouts.failed.csv")) == 5


def test_a_strangers_folder_is_left_alone(sky: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.fits").touch()
    with pytest.raises(SettingError, match="holds something else"):
        make_cutouts(*sky, tmp_path, CutoutConfig(size_pixels=9), overwrite=True)
    assert (tmp_path / "images" / "mine.fits").exists()


def test_the_command_says_what_it_made(sky: tuple[Path, Path], tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(cli.cutouts)
    table = pd.read_csv(sky[1])
    table.loc[0, "dec"] = -2.0
    table.to_csv(tmp_path / "s.csv", index=False)
    arguments = f"--mosaic {sky[0]} --catalog {tmp_path / 's.csv'} --size-pixels 9 --hdu 0 --workers 1 --save-dir"
    for folder, more in (("a", []), ("b", ["--no-files"])):
        result = CliRunner().invoke(app, [*arguments.split(), str(tmp_path / folder), *more])
        assert result.exit_code == 0, result.output
        assert "catalog.csv: 4 of 5 galaxies" in result.output
        assert "cutouts.failed.csv: 1 without a cutout" in result.output
        kept = pd.read_csv(tmp_path / folder / "catalog.csv")
        assert kept["smooth"].tolist() == [1, 4, 1, 5]
        assert list(kept.columns) == [*table.columns, "file_loc", "share_covered"]


MEMORY = """
import resource, sys
from zoobot.cutouts.making import CutoutConfig, make_cutouts
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
make_cutouts(sys.argv[1], sys.argv[2], sys.argv[3], CutoutConfig(size_pixels=64, align=sys.argv[4]), workers=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in kilobytes, as Linux does")
@pytest.mark.parametrize("align", ["pixels", "north"])
def test_a_large_mosaic_is_never_in_memory(tmp_path: Path, align: str) -> None:
    side = 8000  # 256 MB, of which the disk holds only what is not 0
    header = make_wcs().to_header(relax=True)
    hdu = fits.PrimaryHDU(np.zeros((1, 1), np.float32), header)
    hdu.header["NAXIS1"] = hdu.header["NAXIS2"] = side
    path = tmp_path / "m.fits"
    with open(path, "wb") as file:
        start = hdu.header.tostring().encode()
        file.write(start)
        file.truncate(len(start) + -(-4 * side**2 // 2880) * 2880)
    x, y = np.random.default_rng(0).uniform(40, side - 40, (2, 20))
    with open(path, "r+b") as file:
        for each_x, each_y in zip(x, y, strict=True):
            file.seek(len(start) + 4 * (int(each_y) * side + int(each_x)))
            file.write(np.array(7, ">f4").tobytes())
    catalog = make_catalog(tmp_path / "s.csv", make_wcs(), x, y)
    arguments = [sys.executable, "-c", MEMORY, str(path), str(catalog), str(tmp_path / "c"), align]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000


def test_sections_of_compressed_mosaics_unpack_only_their_tiles(tmp_path: Path) -> None:
    side = 2000
    pixels = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(pixels, make_wcs().to_header(relax=True))]
    fits.HDUList(hdus).writeto(tmp_path / "m.fits.fz")
    tracemalloc.start()
    with open_mosaic(tmp_path / "m.fits.fz", None) as mosaic:
        mosaic.read(900, 900, 50, 50)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < pixels.nbytes / 4


def test_mosaics_of_different_bands_are_not_tiles_of_one(tmp_path: Path) -> None:
    wcs, pixels = make_wcs(), draw(X, Y)
    mosaics = [make_mosaic(tmp_path / f"{band}.fits", pixels, wcs, FILTER=band) for band in "gr"]
    catalog = make_catalog(tmp_path / "c.csv", wcs)
    with pytest.raises(SettingError, match=r"g\.fits of g and r\.fits of r are of different bands"):
        make_cutouts(mosaics, catalog, tmp_path / "both", CutoutConfig(size_pixels=9), workers=1)
    assert make_cutouts(mosaics[0], catalog, tmp_path / "one", CutoutConfig(size_pixels=9), workers=1).galaxies == 5
