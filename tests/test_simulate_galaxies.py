"""Simulated galaxies come out as they were put in: flux, size, shape, colour, place; and noise as the sky has it."""

import dataclasses
import itertools

import numpy as np
import pytest

from zoobot.errors import SettingError
from zoobot.simulate import rendering
from zoobot.simulate.galaxies import GALAXY_TYPES, Galaxy, draw_galaxy
from zoobot.simulate.rendering import BANDS, Observation, observe, render, to_rgb

SCALE = 0.25  # arcsec a pixel
SHARP = Observation(seeing=(0.3, 0.3, 0.3), moffat_beta=5.0)
CLEAR = Observation(electrons=(1e6, 1e6, 1e6))

PARTS = {
    "disk": Galaxy(magnitude=16, half_light_radius=3),
    "tilted disk": Galaxy(magnitude=16, half_light_radius=3, inclination=60, position_angle=30),
    "exponential bulge": Galaxy(bulge_share=1, bulge_radius=3, bulge_sersic_index=1),
    "bulge": Galaxy(bulge_share=1, bulge_radius=1.5, bulge_sersic_index=2.5, bulge_axis_ratio=0.6),
    "boxy bulge": Galaxy(bulge_share=1, bulge_radius=2, bulge_sersic_index=1.5, bulge_boxiness=1.0),
    "edge-on disk": Galaxy(half_light_radius=3, inclination=88, position_angle=70),
    "spiral": Galaxy(half_light_radius=3, arm_number=2, arm_contrast=0.8, arm_pitch=20, arm_roughness=0.8),
    "bar": Galaxy(half_light_radius=3, bar_share=1.0, bar_length=4, inclination=40),
    "ring": Galaxy(half_light_radius=3, ring_share=1.0, ring_radius=5, inclination=40),
    "clumps": Galaxy(half_light_radius=3, clump_share=1.0, clump_number=5, seed=3),
    "tails": Galaxy(half_light_radius=2, tail_share=1.0, tail_number=2),
}


def coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """West and north of the centre, arcsec."""
    offsets = (np.arange(size) - (size - 1) / 2) * SCALE
    return np.meshgrid(offsets, offsets)


def second_moments(image: np.ndarray) -> tuple[float, float, float]:
    """Axis ratio, angle of the major axis from north through east, and mean square size along it."""
    x, y = coordinates(image.shape[-1])
    weights = image / image.sum()
    xx, yy, xy = ((weights * product).sum() for product in (x * x, y * y, x * y))
    values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
    west, north = vectors[:, 1]
    return float(np.sqrt(values[0] / values[1])), float(np.degrees(np.arctan2(-west, north)) % 180), float(values[1])


@pytest.mark.parametrize("name", PARTS)
def test_all_light_is_there_in_every_band(name):
    galaxy = PARTS[name]
    light = render(galaxy, 300, SCALE, SHARP).sum(axis=(1, 2))
    assert light[1] == pytest.approx(galaxy.flux, rel=0.02)
    assert light[0] < light[1] < light[2]


def test_magnitude_22_5_is_one_nanomaggy_and_five_more_a_hundredth():
    assert Galaxy(magnitude=22.5).flux == pytest.approx(1)
    assert Galaxy(magnitude=27.5).flux == pytest.approx(0.01)


def test_colours_are_ratios_of_the_bands():
    light = render(Galaxy(half_light_radius=2, disk_g_r=0.6, disk_r_z=0.3), 200, SCALE, SHARP).sum(axis=(1, 2))
    assert -2.5 * np.log10(light[0] / light[1]) == pytest.approx(0.6, abs=0.01)
    assert -2.5 * np.log10(light[1] / light[2]) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("index", [1, 2.5, 4])
def test_half_the_light_lies_within_the_half_light_radius(index):
    galaxy = Galaxy(bulge_share=1, bulge_radius=4, bulge_sersic_index=index)
    image = render(galaxy, 400, SCALE, SHARP)[1]
    x, y = coordinates(400)
    assert image[np.hypot(x, y) < 4].sum() == pytest.approx(galaxy.flux / 2, rel=0.02)


def test_half_the_light_of_a_disk_lies_within_its_half_light_radius():
    image = render(Galaxy(half_light_radius=4), 400, SCALE, SHARP)[1]
    x, y = coordinates(400)
    assert image[np.hypot(x, y) < 4].sum() == pytest.approx(image.sum() / 2, rel=0.02)


@pytest.mark.parametrize("angle", [0, 35, 90, 140])
def test_axis_ratio_and_position_angle_come_out(angle):
    galaxy = Galaxy(bulge_share=1, bulge_radius=3, bulge_sersic_index=1, bulge_axis_ratio=0.5, position_angle=angle)
    ratio, found, _ = second_moments(render(galaxy, 300, SCALE, SHARP)[1])
    assert ratio == pytest.approx(0.5, abs=0.01)
    assert (found - angle + 90) % 180 - 90 == pytest.approx(0, abs=1)


def test_an_inclined_disk_has_the_axis_ratio_of_hubbles_formula():
    galaxy = Galaxy(half_light_radius=3, inclination=60, disk_thickness=0.2, position_angle=10)
    assert galaxy.disk_axis_ratio == pytest.approx(np.sqrt(0.25 * 0.96 + 0.04))
    ratio, angle, _ = second_moments(render(galaxy, 300, SCALE, SHARP)[1])
    assert ratio == pytest.approx(galaxy.disk_axis_ratio, abs=0.01)
    assert angle == pytest.approx(10, abs=1)


@pytest.mark.parametrize("inclination", [0, 40, 75, 78.1, 84, 90])
def test_a_disk_thins_smoothly_to_its_thickness(inclination):
    galaxy = Galaxy(half_light_radius=4, inclination=inclination, disk_thickness=0.15)
    ratio, _, _ = second_moments(render(galaxy, 400, SCALE, SHARP)[1])
    assert ratio == pytest.approx(galaxy.disk_axis_ratio, abs=0.02)


@pytest.mark.parametrize("pitch", [12, 25])
@pytest.mark.parametrize("direction", [1, -1])
def test_arms_wind_with_their_pitch_in_their_direction(pitch, direction):
    galaxy = Galaxy(half_light_radius=8, arm_number=2, arm_contrast=0.8, arm_pitch=pitch, arm_direction=direction)
    image = render(galaxy, 320, SCALE, SHARP)[1]
    x, y = coordinates(320)
    radius, angle = np.hypot(x, y), np.arctan2(-x, y)  # from north through east, the galaxy's major axis
    edges = np.geomspace(6, 12, 9)
    phases = []
    for inner, outer in itertools.pairwise(edges):
        circle = (radius >= inner) & (radius < outer)
        phases.append(np.angle((image[circle] * np.exp(-2j * angle[circle])).sum()))
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.unwrap(phases), 1)[0]
    turn = -slope / 2  # dθ/d ln r; the sign is of the angle's sense
    assert abs(turn) == pytest.approx(1 / np.tan(np.radians(pitch)), rel=0.06)
    other = dataclasses.replace(galaxy, arm_direction=-direction)
    np.testing.assert_allclose(render(other, 320, SCALE, SHARP)[1], image[:, ::-1], rtol=2e-2, atol=1e-3 * image.max())


def test_a_ring_is_brightest_at_its_radius():
    image = render(Galaxy(ring_share=1, ring_radius=6), 200, SCALE, SHARP)[1]
    x, y = coordinates(200)
    assert np.hypot(x, y).ravel()[image.argmax()] == pytest.approx(6, abs=0.3)


def test_boxy_bulges_have_corners():
    boxy, round_ = (
        render(Galaxy(bulge_share=1, bulge_radius=4, bulge_sersic_index=1, bulge_boxiness=b), 200, SCALE, SHARP)[1]
        for b in (1.0, 0.0)
    )
    x, y = coordinates(200)
    far = (np.hypot(x, y) > 5) & (np.hypot(x, y) < 7)
    corners = far & (abs(abs(x) - abs(y)) < 0.5)
    sides = far & ((abs(x) < 0.5) | (abs(y) < 0.5))
    assert boxy[corners].mean() / boxy[sides].mean() > 1.2
    assert round_[corners].mean() / round_[sides].mean() == pytest.approx(1, abs=0.05)


def test_tails_lie_outside_the_body():
    tails = render(PARTS["tails"], 300, SCALE, SHARP)[1]
    x, y = coordinates(300)
    radius = np.hypot(x, y)
    assert np.average(radius, weights=tails) == pytest.approx(5 * 0.75 * 2, rel=0.02)  # of r⁴ exp(−r / 0.75)
    crossing = tails[(radius > 8) & (radius < 9)]
    assert crossing.max() > 5 * np.median(crossing)


def test_dust_takes_what_its_depth_says():
    galaxy = Galaxy(inclination=90, half_light_radius=10, disk_thickness=0.5, dust_depth=1.5)
    left = (render(galaxy, 200, SCALE, SHARP) / render(dataclasses.replace(galaxy, dust_depth=0), 200, SCALE, SHARP))[
        :, 99:101, 99:101
    ].mean(axis=(1, 2))
    np.testing.assert_allclose(left, 0.5 + 0.5 * np.exp(-1.5 * np.array([1.49, 1.0, 0.56])), rtol=0.1)


def test_clumps_and_tails_are_drawn_from_the_side_too():
    side = Galaxy(inclination=89, half_light_radius=3)
    for part in ({"tail_share": 0.3, "tail_number": 2}, {"clump_share": 0.3, "clump_number": 4}):
        galaxy = dataclasses.replace(side, **part)
        image = render(galaxy, 300, SCALE, SHARP)[1]
        assert image.sum() == pytest.approx(galaxy.flux, rel=0.02)
        assert abs(image - render(side, 300, SCALE, SHARP)[1]).sum() > 0.1 * galaxy.flux


@pytest.mark.parametrize("name", ["spiral", "tails", "clumps"])
def test_a_galaxy_is_the_same_in_a_wider_field(name):
    near, wide = render(PARTS[name], 80, SCALE, SHARP), render(PARTS[name], 160, SCALE, SHARP)
    inner = (slice(None), slice(50, 110), slice(50, 110))
    assert abs(near[:, 10:70, 10:70] - wide[inner]).sum() < 0.01 * wide[inner].sum()


def test_each_band_has_its_own_seeing():
    observation = Observation(seeing=(0.8, 1.6, 2.4))
    point = Galaxy(bulge_share=1, bulge_radius=0.02, bulge_sersic_index=1)
    peaks = render(point, 81, SCALE, observation)[:, 40, 40] / render(point, 81, SCALE, observation).sum(axis=(1, 2))
    assert peaks[0] / peaks[1] == pytest.approx(4, rel=0.15)
    assert peaks[1] / peaks[2] == pytest.approx(2.25, rel=0.1)


def test_the_photons_of_bright_galaxies_are_noisy_too():
    galaxy, observation = Galaxy(magnitude=13, half_light_radius=2), Observation()
    expected = render(galaxy, 32, SCALE)
    taken = np.stack([observe(galaxy, 32, SCALE, seed=seed)[0] for seed in range(200)])
    middle = (slice(None), slice(None), slice(13, 19), slice(13, 19))
    found = taken[middle].var(axis=0).mean(axis=(1, 2))
    photons = expected[:, 13:19, 13:19].mean(axis=(1, 2)) / np.array(observation.electrons)
    sky = np.array([observation.noise(band) ** 2 for band in BANDS]) * SCALE**2
    assert (photons > 3 * sky).all()
    np.testing.assert_allclose(found, photons + sky, rtol=0.06)


def test_another_exposure_of_the_same_galaxy_differs_by_noise_and_field_alone():
    galaxy = Galaxy(clump_share=0.6, clump_number=6, magnitude=14, seed=5)
    one, other = (observe(galaxy, 48, SCALE, seed=seed)[0] for seed in (1, 2))
    assert (one != other).any()
    inner = (1, slice(16, 32), slice(16, 32))
    assert abs(one[inner] - other[inner]).sum() < 0.1 * one[inner].sum()


@pytest.mark.parametrize("scale", [0.25, 0.9, 2.0])
def test_sources_in_the_field_keep_their_light_on_any_pixels(scale, monkeypatch):
    monkeypatch.setattr(rendering, "_DENSITIES", {"stars": 3600 / (64 * scale) ** 2 * 20})
    monkeypatch.setattr(rendering, "_FIELD_MAGNITUDES", (19.0, 19.001))
    light, number = rendering._draw_field(
        Galaxy(half_light_radius=0.01), 64, scale, Observation(), np.random.default_rng(0)
    )
    assert number > 8
    assert light[1].sum() / (number * 10 ** (0.4 * 3.5)) == pytest.approx(1, abs=0.12)  # some lie at the edge


def test_pictures_are_as_bright_on_any_pixels():
    galaxy = Galaxy(magnitude=15, half_light_radius=4)
    coarse, fine = (to_rgb(render(galaxy, size, scale), scale) for size, scale in ((32, 0.5), (64, 0.25)))
    assert abs(coarse.mean() - fine.mean()) < 2


def test_a_galaxy_is_the_same_on_any_pixels():
    galaxy = PARTS["spiral"]
    coarse, fine = render(galaxy, 64, 0.5, SHARP), render(galaxy, 128, 0.25, SHARP)
    assert coarse.sum() == pytest.approx(fine.sum(), rel=0.01)
    blocks = fine.reshape(3, 64, 2, 64, 2).sum(axis=(2, 4))
    assert np.abs(blocks - coarse).sum() < 0.06 * coarse.sum()


def test_arms_move_light_and_add_none():
    smooth = render(Galaxy(half_light_radius=3), 200, SCALE, SHARP)[1]
    spiral = render(Galaxy(half_light_radius=3, arm_number=2, arm_contrast=0.7), 200, SCALE, SHARP)[1]
    assert spiral.sum() == pytest.approx(smooth.sum(), rel=0.005)
    assert np.abs(spiral - smooth).sum() > 0.1 * smooth.sum()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_arms_can_be_counted(number):
    galaxy = Galaxy(half_light_radius=6, arm_number=number, arm_contrast=0.8, arm_pitch=25)
    image = render(galaxy, 240, SCALE, SHARP)[1]
    x, y = coordinates(240)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    circle = (radius > 6) & (radius < 6.6)
    strength = [abs((image[circle] * np.exp(-1j * order * angle[circle])).sum()) for order in range(1, 6)]
    assert int(np.argmax(strength)) + 1 == number


def test_a_bar_lies_along_its_angle():
    galaxy = Galaxy(bar_share=1, bar_length=5, bar_axis_ratio=0.25, bar_angle=50, position_angle=20)
    ratio, angle, _ = second_moments(render(galaxy, 200, SCALE, SHARP)[1])
    assert ratio == pytest.approx(0.25, abs=0.02)
    assert (angle - 70) % 180 < 2 or (angle - 70) % 180 > 178


def test_a_companion_lies_where_it_was_put_with_its_light():
    alone, galaxy = Galaxy(), Galaxy(companion_ratio=0.5, companion_separation=12, companion_angle=90)
    added = (render(galaxy, 240, SCALE, SHARP) - render(alone, 240, SCALE, SHARP))[1]
    x, y = coordinates(240)
    assert added.sum() == pytest.approx(0.5 * alone.flux, rel=0.02)
    assert (added * x).sum() / added.sum() == pytest.approx(-12, abs=0.2)  # east is left
    assert (added * y).sum() / added.sum() == pytest.approx(0, abs=0.2)


def test_dust_dims_and_reddens_a_disk_from_its_side():
    clear = Galaxy(inclination=90, disk_thickness=0.2)
    ratios = render(dataclasses.replace(clear, dust_depth=2.0), 160, SCALE).sum(axis=(1, 2)) / render(
        clear, 160, SCALE
    ).sum(axis=(1, 2))
    assert 0.5 < ratios[0] < ratios[1] < ratios[2] < 1


def test_a_star_is_as_wide_as_the_seeing():
    point = Galaxy(bulge_share=1, bulge_radius=0.02, bulge_sersic_index=1)
    wide = Observation(seeing=(2.0, 2.0, 2.0))
    image = render(point, 121, SCALE, wide)[1]
    across = image[60] / image.max()
    half = np.interp(0.5, across[60:][::-1], np.arange(61)[::-1])
    assert 2 * half * SCALE == pytest.approx(2.0, rel=0.04)


def test_noise_is_that_of_the_photons():
    galaxy = Galaxy(magnitude=22, half_light_radius=0.3, seed=1)
    observation = Observation()
    taken = [observe(dataclasses.replace(galaxy, seed=seed), 64, SCALE, observation)[0] for seed in range(40)]
    empty = np.array([image[:, -20:, -20:] for image in taken])
    for place, band in enumerate(BANDS):
        spread = np.median(np.abs(empty[:, place] - np.median(empty[:, place]))) * 1.4826
        assert spread == pytest.approx(observation.noise(band) * SCALE, rel=0.05)


def test_flux_in_an_aperture_is_right_within_the_noise():
    galaxy = Galaxy(magnitude=17, half_light_radius=2)
    x, y = coordinates(128)
    aperture = np.hypot(x, y) < 10
    expected = render(galaxy, 128, SCALE)[1][aperture].sum()
    noise = np.sqrt(Observation().noise("r") ** 2 * aperture.sum() * SCALE**2 + expected / Observation().electrons[1])
    found = []
    for seed in range(150):
        image, around = observe(dataclasses.replace(galaxy, seed=seed), 128, SCALE)
        if not around["field_sources"]:
            found.append((image[1][aperture].sum() - expected) / noise)
    assert len(found) > 8
    assert abs(np.mean(found)) < 4 / np.sqrt(len(found))
    assert 0.5 < np.std(found) < 1.6


def test_the_same_galaxy_gives_the_same_image_and_another_seed_another():
    galaxy = draw_galaxy(np.random.default_rng(3))
    one, other = observe(galaxy, 48, SCALE)[0], observe(galaxy, 48, SCALE)[0]
    assert (one == other).all()
    assert (one != observe(dataclasses.replace(galaxy, seed=galaxy.seed + 1), 48, SCALE)[0]).any()


def test_colour_pictures_have_north_up_and_show_the_galaxy():
    galaxy = Galaxy(companion_ratio=1, companion_separation=6, companion_angle=0, half_light_radius=1.5)
    rgb = to_rgb(render(galaxy, 64, SCALE, CLEAR), SCALE)
    assert rgb.shape == (64, 64, 3)
    assert rgb[:32].sum() > 1.5 * rgb[32:].sum()  # the companion is in the north: in the first rows


def test_red_galaxies_look_red_and_blue_ones_blue():
    red = to_rgb(render(Galaxy(disk_g_r=1.0, disk_r_z=0.9), 64, SCALE), SCALE)[32, 26]
    blue = to_rgb(render(Galaxy(disk_g_r=0.0, disk_r_z=0.0), 64, SCALE), SCALE)[32, 26]
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_the_population_has_its_shares_and_its_disks_lie_every_way():
    drawn = [draw_galaxy(np.random.default_rng([0, number])) for number in range(2000)]
    for kind, share in GALAXY_TYPES.items():
        count = sum(galaxy.type == kind for galaxy in drawn)
        assert abs(count - 2000 * share) < 4.5 * np.sqrt(2000 * share * (1 - share))
    magnitudes = np.array([galaxy.magnitude for galaxy in drawn])
    share = (10 ** (0.3 * 2) - 1) / (10 ** (0.3 * 3.8) - 1)  # brighter than 16
    assert np.mean(magnitudes < 16) == pytest.approx(share, abs=4.5 * np.sqrt(share / 2000))
    spirals = [galaxy for galaxy in drawn if galaxy.type == "spiral"]
    cosines = np.cos(np.radians([galaxy.inclination for galaxy in spirals]))
    assert np.mean(cosines) == pytest.approx(0.5, abs=4.5 * np.sqrt(1 / 12 / len(spirals)))
    assert all(14 <= galaxy.magnitude <= 17.8 for galaxy in drawn)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"type": "banana"}, "expected one of elliptical"),
        ({"fault": "cat"}, "star, trail"),
        ({"bulge_share": 0.7, "bar_share": 0.6}, "together"),
        ({"bulge_radius": 0.0}, "bulge_radius"),
        ({"inclination": 100.0}, "0 to 90"),
        ({"magnitude": float("nan")}, "magnitude"),
        ({"bulge_sersic_index": 0.0}, "bulge_sersic_index"),
        ({"bulge_axis_ratio": 0.0}, "bulge_axis_ratio"),
        ({"bar_axis_ratio": 3.0}, "bar_axis_ratio"),
        ({"clump_share": 0.5}, "clump_number"),
        ({"tail_share": 0.1}, "tail_number"),
        ({"clump_share": 0.5, "clump_number": 2.5}, "whole number"),
        ({"arm_direction": 0}, "arm_direction"),
        ({"magnitude": -1e5}, "magnitude"),
        ({"bulge_share": "a"}, "bulge_share"),
    ],
)
def test_impossible_galaxies_are_refused(wrong, words):
    with pytest.raises(SettingError, match=words):
        Galaxy(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"seeing": (1.0, 1.0)}, {"seeing": (0.0, 1.0, 1.0)}, {"moffat_beta": 1.0}, {"sky": (np.nan, 20.0, 19.0)}]
)
def test_impossible_skies_are_refused(wrong):
    with pytest.raises(SettingError):
        Observation(**wrong)
