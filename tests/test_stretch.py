"""The stretch: where black, white and the sky land, what it must not depend on, and what it makes of bad pixels."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.visualization import AsinhStretch, LinearStretch, SqrtStretch, make_lupton_rgb
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zoobot.data import images
from zoobot.data.fits_images import FitsConfig, FitsLayout
from zoobot.data.stretch import STRETCHES, Stretch, apply_stretch, describe_stretch, parse_stretch
from zoobot.errors import SettingError

Fluxes = NDArray[np.float32]

PER_BAND = Stretch(scales=(2.0, 1.0, 0.5), lower=-0.5, upper=20.0, softening=0.5, keep_colour=False)
COLOURED = dataclasses.replace(PER_BAND, keep_colour=True, faint=0.2)
RANGED = STRETCHES["percentile"]
EXTREMES = dataclasses.replace(RANGED, percentiles=(0.0, 100.0))  # do not depend on how many pixels there are


def galaxy(bands: int = 3, side: int = 40, noise: float = 0.05) -> Fluxes:
    """A red galaxy on a noisy sky, of unit peak."""
    y, x = np.mgrid[:side, :side] - side / 2
    light = np.exp(-np.hypot(x, 1.5 * y) / 6)
    colours = np.array([1.0, 0.7, 0.4])[:bands, None, None]
    return np.asarray(light * colours + np.random.default_rng(0).normal(0, noise, (bands, side, side)), np.float32)


def levels(*fluxes: float, stretch: Stretch) -> list[int]:
    """What fluxes that are the same in all bands become, in the first band."""
    bands = np.tile(np.array(fluxes, np.float32), (len(stretch.scales), 1, 1))
    bands *= np.array(stretch.scales, np.float32)[:, None, None]
    return [int(level) for level in apply_stretch(bands, stretch)[0, :, 0]]


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    """The largest of two images, in grey levels."""
    return int(np.abs(first.astype(int) - second).max())


@pytest.mark.parametrize("curve", ["asinh", "linear", "sqrt"])
@pytest.mark.parametrize("keep_colour", [False, True])
@pytest.mark.parametrize("scales", [(3.0,), (2.0, 1.0, 0.5)])
def test_lower_is_black_and_upper_is_white(curve: str, keep_colour: bool, scales: tuple[float, ...]) -> None:
    stretch = Stretch(scales, -0.5, 8.0, curve=curve, softening=0.3, keep_colour=keep_colour, faint=0.1)
    assert levels(-1e6, -0.5, 8.0, 1e6, stretch=stretch) == [0, 0, 255, 255]
    rising = levels(*np.linspace(-0.5, 8, 200), stretch=stretch)
    assert rising == sorted(rising)
    assert len(set(rising)) > 50


@pytest.mark.parametrize(("name", "sky"), [("decals", 18), ("lupton", 0)])
def test_the_sky_lands_where_documented(name: str, sky: int) -> None:
    stretch = STRETCHES[name]
    black, white = (np.arcsinh(edge / stretch.softening) for edge in (stretch.lower, stretch.upper))
    assert levels(0.0, stretch=stretch) == [sky] == [round(-255 * black / (white - black))]


@pytest.mark.parametrize("softening", [0.01, 0.1, 0.7])
def test_curves_are_those_of_astropy(softening: float) -> None:
    x = np.linspace(0, 1, 500, dtype=np.float32)
    for curve, expected in [
        ("asinh", AsinhStretch(softening)),
        ("sqrt", SqrtStretch()),
        ("linear", LinearStretch()),
    ]:
        pixels = apply_stretch(x[None, None], Stretch(curve=curve, softening=softening))
        assert np.abs(pixels[0, :, 0] - 255 * expected(x)).max() <= 0.501


def test_lupton_is_that_of_astropy() -> None:
    bands = 20 * galaxy()
    expected = make_lupton_rgb(*bands)
    compared = (expected.max(axis=2) < 254) & (
        bands.mean(axis=0) > 0
    )  # astropy dims what saturates, and blackens the rest
    assert compared.mean() > 0.5
    assert difference(apply_stretch(bands, STRETCHES["lupton"])[compared], expected[compared]) <= 1


@pytest.mark.parametrize("stretch", [PER_BAND, COLOURED, dataclasses.replace(COLOURED, percentiles=(1.0, 99.0))])
@pytest.mark.parametrize("factor", [1e-12, 4.0, 3e9])
def test_fluxes_and_scales_in_other_units_give_the_same(stretch: Stretch, factor: float) -> None:
    bands = galaxy()
    other = dataclasses.replace(stretch, scales=tuple(scale * factor for scale in stretch.scales))
    changed = apply_stretch((bands * factor).astype(np.float32), other)
    assert difference(apply_stretch(bands, stretch), changed) <= 1


@given(st.floats(0.01, 1e6), st.floats(-1e3, 1e3))
def test_percentiles_make_units_and_sky_level_irrelevant(slope: float, offset: float) -> None:
    bands = galaxy()
    changed = (slope * (bands.astype(np.float64) + offset)).astype(np.float32)
    assert difference(apply_stretch(bands, RANGED), apply_stretch(changed, RANGED)) <= 2  # float32 rounds the offset


def test_percentiles_are_black_and_white() -> None:
    stretch = Stretch(percentiles=(10.0, 90.0), curve="linear", softening=1.0)
    pixels = apply_stretch(np.arange(101, dtype=np.float32).reshape(1, 1, 101), stretch)[0, :, 0]
    assert pixels[10] == 0
    assert pixels[11] > 0
    assert pixels[89] < 255
    assert pixels[90] == 255
    assert pixels[50] in (127, 128)


@pytest.mark.parametrize("brightness", [1.0, 30.0, 1000.0])
def test_keep_colour_keeps_the_ratios_of_the_bands(brightness: float) -> None:
    flux = brightness * np.array([1.0, 0.5, 0.25], np.float32)
    stretch = Stretch(upper=1e9, softening=0.01)
    red, green, blue = apply_stretch(flux.reshape(3, 1, 1), stretch)[0, 0].astype(float)
    assert abs(red - 2 * green) <= 1.5
    assert abs(red - 4 * blue) <= 2.5
    per_band = apply_stretch(flux.reshape(3, 1, 1), dataclasses.replace(stretch, keep_colour=False))[0, 0]
    assert per_band[2] > blue  # greyer


def test_faint_makes_noise_grey_and_leaves_bright_galaxies_their_colour() -> None:
    bands = galaxy()
    vivid, muted = (
        apply_stretch(bands, dataclasses.replace(PER_BAND, faint=faint)).astype(float) for faint in (0.0, 0.5)
    )
    spread = [np.ptp(pixels, axis=2) for pixels in (vivid, muted)]
    assert spread[1][:8].mean() < 0.2 * spread[0][:8].mean()
    assert spread[1][20, 20] > 0.6 * spread[0][20, 20]
    bright = 1000 * np.array(PER_BAND.scales, np.float32).reshape(3, 1, 1) * np.array([3, 2, 1]).reshape(3, 1, 1)
    wide = dataclasses.replace(PER_BAND, upper=5000.0)
    assert difference(apply_stretch(bright, wide), apply_stretch(bright, dataclasses.replace(wide, faint=0.5))) <= 1


@pytest.mark.parametrize("stretch", [PER_BAND, COLOURED, EXTREMES, STRETCHES["decals"]])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38, -1.6e38])
def test_bad_pixels_are_filled_and_change_nothing_else(stretch: Stretch, bad: float) -> None:
    bands = galaxy()
    bands[:, 20:] = bands[:, 19::-1]
    good = apply_stretch(bands, stretch)
    bands[:, 20:] = bad
    filled = apply_stretch(bands, stretch)
    assert np.array_equal(filled[:20], good[:20])
    level = 0.0
    if stretch.percentiles:
        scaled = bands[:, :20] / np.array(stretch.scales, np.float32)[:, None, None]
        low, high, level = np.percentile(scaled.mean(axis=0), (*stretch.percentiles, 25))
        level = (level - low) / (high - low)
    flat = np.array(stretch.scales).reshape(-1, 1, 1) * np.full((3, 1, 1), level)
    sky = apply_stretch(flat.astype(np.float32), dataclasses.replace(stretch, percentiles=None))[0, 0]
    assert np.array_equal(filled[20:], np.broadcast_to(sky, (20, 40, 3)))


def test_a_pixel_that_lacks_a_band_is_grey() -> None:
    stretch = Stretch((2.0, 1.0, 0.5), upper=10.0, curve="linear", softening=1.0)
    flux = np.array([2.0 * 3, np.nan, 0.5 * 5], np.float32).reshape(3, 1, 1)
    assert apply_stretch(flux, stretch)[0, 0].tolist() == [round(25.5 * value) for value in (3, 4, 5)]
    flux[2] = np.inf
    assert apply_stretch(flux, stretch)[0, 0].tolist() == [round(25.5 * 3)] * 3


@pytest.mark.parametrize("stretch", STRETCHES.values())
@pytest.mark.parametrize("flux", [0.0, 1.0, -7.0, 3e5, np.nan])
@pytest.mark.parametrize("bands", [1, 3])
def test_an_image_of_one_value_stays_that(stretch: Stretch, flux: float, bands: int) -> None:
    if bands == 1:
        stretch = dataclasses.replace(stretch, scales=(1.0,))
    pixels = apply_stretch(np.full((bands, 9, 7), flux, np.float32), stretch)
    assert pixels.shape == (9, 7, bands)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[0, 0]).all()


@pytest.mark.parametrize("stretch", [PER_BAND, COLOURED, STRETCHES["decals"], RANGED])
def test_bands_and_their_scales_in_another_order_give_colours_in_that_order(stretch: Stretch) -> None:
    pixels = apply_stretch(galaxy(), stretch)
    for order in itertools.permutations(range(3)):
        scales = tuple(stretch.scales[band] for band in order) if len(stretch.scales) == 3 else stretch.scales
        permuted = apply_stretch(galaxy()[list(order)], dataclasses.replace(stretch, scales=scales))
        assert difference(permuted, pixels[..., list(order)]) <= 1


@pytest.mark.parametrize("stretch", [COLOURED, EXTREMES])
def test_large_images_are_stretched_as_their_parts(stretch: Stretch) -> None:
    bands = np.tile(galaxy(), (1, 7, 5))  # more than one block of rows
    assert difference(apply_stretch(bands, stretch), np.tile(apply_stretch(galaxy(), stretch), (7, 5, 1))) <= 1
    before = bands.copy()
    apply_stretch(bands, stretch)
    assert np.array_equal(bands, before)


def test_bands_that_do_not_fit() -> None:
    with pytest.raises(SettingError, match=r"bands: got shape \(2, 4, 4\), expected \(1 or 3, height, width\)"):
        apply_stretch(np.zeros((2, 4, 4), np.float32), Stretch())
    with pytest.raises(SettingError, match="scales for 3 bands, and an image of one"):
        apply_stretch(np.zeros((1, 4, 4), np.float32), STRETCHES["decals"])


@pytest.mark.parametrize("stretch", [*STRETCHES.values(), COLOURED])
def test_settings_come_back_from_json(stretch: Stretch) -> None:
    assert Stretch.from_dict(dataclasses.asdict(stretch)) == stretch
    config = FitsConfig(FitsLayout(hdu="SCI", bands=("z", "r", "g"), zero_point=25.0), stretch)
    assert FitsConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize("name", STRETCHES)
def test_a_stretch_written_out_is_parsed_as_the_same(name: str) -> None:
    assert parse_stretch(name) == STRETCHES[name]
    for other in STRETCHES:
        settings = dataclasses.asdict(STRETCHES[name])
        texts = {
            key: "/".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
            for key, value in settings.items()
        }
        text = other + ":" + ",".join(f"{key}={value}" for key, value in texts.items())
        assert parse_stretch(text) == STRETCHES[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sdss", "got 'sdss', expected one of decals, lupton, percentile"),
        ("", "got '', expected one of"),
        ("decals:white=3", "got 'white=3', expected setting=value with one of scales, lower"),
        ("decals:upper", "got 'upper', expected setting=value"),
        ("decals:upper=high", "got upper=high, expected a number"),
        ("decals:scales=none", "got scales=none, expected a number, or several"),
        ("decals:scales=1/2", r"scales: got \(1.0, 2.0\), expected one or three numbers above 0"),
        ("decals:scales=1/2/-3", "expected one or three numbers above 0"),
        ("decals:upper=nan", "expected numbers up to"),
        ("decals:upper=1e300", "expected numbers up to"),
        ("decals:upper=-3", "lower, upper: got -0.5 and -3.0, expected the lower one first"),
        ("decals:lower=1e15,upper=1.0000000000000001e15", "expected the lower one first, and a gap"),
        ("decals:softening=0", "softening, faint: got 0.0"),
        ("decals:softening=1e-300", "softening, faint: got 1e-300"),
        ("decals:faint=-1", "softening, faint: got 1.0 and -1.0"),
        ("decals:curve=log", "curve: got 'log', expected one of asinh, linear, sqrt"),
        ("decals:keep_colour=yes", "got keep_colour=yes, expected true or false"),
        ("percentile:percentiles=99/1", "percentiles: got .*, expected two from 0 to 100, the lower first"),
        ("percentile:percentiles=1/50/99", "expected two from 0 to 100"),
        ("percentile:percentiles=1", "expected two from 0 to 100"),
        ("percentile:percentiles=1/101", "expected two from 0 to 100"),
    ],
)
def test_what_is_no_stretch(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse_stretch(text)


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        [],
        "decals",
        {"white": 1},
        {"scales": 5},
        {"scales": []},
        {"scales": "123"},
        {"scales": {"1": 2}},
        {"scales": [[1]]},
        {"scales": [True]},
        {"percentiles": []},
        {"percentiles": [0, 50, 100]},
        {"percentiles": 5},
        {"lower": "0"},
        {"lower": None},
        {"upper": 10**400},
        {"upper": float("nan")},
        {"curve": ["asinh"]},
        {"curve": {}},
        {"curve": None},
        {"keep_colour": "no"},
        {"keep_colour": 1},
        {"faint": []},
    ],
)
def test_hostile_settings_are_refused(content: Any) -> None:
    with pytest.raises(SettingError, match="stretch: "):
        Stretch.from_dict(content)
    if content is not None:  # in shards it means that fluxes are kept
        with pytest.raises(SettingError):
            FitsConfig.from_dict({"layout": {}, "stretch": content})


@pytest.mark.parametrize(
    "content",
    [
        {"layout": {"bands": ["z"] * 100_000}, "stretch": {}},
        {"layout": {}, "stretch": {"scales": [0.1] * 100_000}},
        {"layout": {"no": "x" * 100_000}, "stretch": {}},
        {"x" * 100_000: 1},
    ],
)
def test_messages_about_huge_settings_are_short(content: Any) -> None:
    with pytest.raises(SettingError) as caught:
        FitsConfig.from_dict(content)
    assert len(str(caught.value)) < 600


def test_scales_for_three_bands_are_not_for_one() -> None:
    layout = FitsLayout(bands=("r",))
    with pytest.raises(SettingError, match=r"scales for 3 bands, and bands .* is r alone"):
        FitsConfig(layout, STRETCHES["decals"])
    for stretch in (STRETCHES["lupton"], None):
        assert FitsConfig(layout, stretch).layout == layout


NUMBERS = st.floats(-1e20, 1e20) | st.sampled_from([0.0, 1e-20, 1e20])


@given(
    scale=NUMBERS,
    lower=NUMBERS,
    upper=NUMBERS,
    softening=NUMBERS,
    faint=NUMBERS,
    curve=st.sampled_from(["asinh", "linear", "sqrt"]),
    keep_colour=st.booleans(),
    percentiles=st.sampled_from([None, (0.0, 1e-9), (1.0, 99.0)]),
)
def test_any_settings_that_are_allowed_work(**settings: Any) -> None:
    try:
        stretch = Stretch((settings.pop("scale"),), **settings)
    except SettingError:
        return
    with np.errstate(all="raise"):
        assert apply_stretch(galaxy(side=6), stretch).shape == (6, 6, 3)


@pytest.mark.parametrize("name", ["example_a", "example_b"])
def test_decals_looks_as_the_survey_shows_it(shared_data: Path, name: str) -> None:
    folder = shared_data / "decals_fits"
    config = FitsConfig(stretch=STRETCHES["decals"])
    ours = images.read_image(folder / f"{name}.fits", fits=config).astype(float)
    theirs = images.read_image(folder / f"{name}.jpeg").astype(float)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    assert np.abs(ours - theirs).mean() < 2.5


@pytest.mark.parametrize(
    "text", ["decals", "percentile", "lupton:scales=0.06/0.04/0.03", "decals:upper=200.0,keep_colour=true"]
)
def test_a_stretch_can_be_described_and_parsed_again(text: str) -> None:
    assert describe_stretch(parse_stretch(text)) == text
    assert parse_stretch(describe_stretch(Stretch(curve="sqrt"))) == Stretch(curve="sqrt")
