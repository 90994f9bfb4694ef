"""Images of simulated galaxies: light in g, r and z, seen through the air and the camera.

Arrays are (bands, height, width) with the first row at the bottom (south), as in FITS files, and east at the left.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from astropy.visualization import make_lupton_rgb
from numpy.typing import NDArray
from scipy import special

from zoobot.errors import SettingError
from zoobot.simulate.galaxies import Galaxy

__all__ = ["BANDS", "Observation", "observe", "render", "to_rgb"]

BANDS = ("g", "r", "z")
Floats = NDArray[np.float32]

_OVERSAMPLING = 2  # grid points along a pixel
_CORE_PIXELS = 4  # width of the middle in which a bulge's cusp is drawn finer still
_CORE_OVERSAMPLING = 16
_ARM_SHARPNESS = 2.5  # κ of the von Mises profile across an arm
_ARM_COLOURS = (-0.3, -0.25)  # of arms, less those of their disk: g − r, r − z
_CLUMP_COLOURS = (-0.2, -0.2)
_DUST = np.array([1.49, 1.0, 0.56])  # depth in g, r, z over that in r (Schlafly & Finkbeiner 2011, DES, R_V = 3.1)
_STAR_COLOURS = ((0.2, 0.1), (1.4, 1.2))  # g − r and r − z of the bluest and reddest stars of the field
_DENSITIES = {"stars": 1.5, "galaxies": 5.0}  # an arcmin², brighter than the limits below: a choice
_FIELD_MAGNITUDES = (17.0, 23.0)


@dataclass(frozen=True)
class Observation:
    """What air, sky and camera do. One number each for g, r and z.

    The defaults lie between SDSS and DECaLS: the seeing of the Legacy Surveys (Dey et al. 2019), a dark site's sky,
    and an exposure whose noise on that sky is 25.7 mag/arcsec² (1σ) in r.
    """

    seeing: tuple[float, float, float] = (1.3, 1.2, 1.1)
    """Full width at half maximum of a star, in arcsec."""
    moffat_beta: float = 3.0
    """Exponent of the Moffat profile: small ones have wide wings."""
    sky: tuple[float, float, float] = (22.0, 20.9, 18.9)
    """Brightness of the sky, mag/arcsec²."""
    electrons: tuple[float, float, float] = (1500.0, 1500.0, 1500.0)
    """Electrons counted for a nanomaggy."""

    def __post_init__(self) -> None:
        """Check it."""
        for name in ("seeing", "electrons"):
            if len(getattr(self, name)) != len(BANDS) or not all(0 < value < np.inf for value in getattr(self, name)):
                raise SettingError(f"{name}: got {getattr(self, name)!r}, expected three numbers above 0, for g, r, z.")
        if len(self.sky) != len(BANDS) or not np.isfinite(self.sky).all():
            raise SettingError(f"sky: got {self.sky!r}, expected three magnitudes, for g, r, z.")
        if not 1 < self.moffat_beta < np.inf:
            raise SettingError(f"moffat_beta: got {self.moffat_beta!r}, expected a number above 1.")

    def noise(self, band: str = "r") -> float:
        """Standard deviation of the empty sky over one arcsec², in nanomaggies: it grows with √area."""
        place = BANDS.index(band)
        return math.sqrt(_to_flux(self.sky[place]) / self.electrons[place])


def render(galaxy: Galaxy, img_size: int, pixel_scale: float, observation: Observation | None = None) -> Floats:
    """Draw a galaxy's light alone, blurred by the seeing: no field, no noise.

    Bulges are Sérsic profiles (Graham & Driver 2005), disks exponential or, from their side, the
    ``(R/h) K₁(R/h) sech²(z/z₀)`` of van der Kruit & Searle (1981), into which bars and rings are
    merged; arms logarithmic spirals, across which the disk's light follows a von Mises profile: they move light and
    add none.

    Args:
        galaxy: what to draw; its centre is the image's.
        img_size: height and width in pixels.
        pixel_scale: arcsec a pixel.
        observation: whose seeing to use; the default one if not given.

    Returns:
        (3, img_size, img_size) float32, nanomaggies a pixel in g, r and z. Light beyond the edges is lost.
    """
    grid = _Grid(galaxy, img_size, pixel_scale)
    light = np.zeros((len(BANDS), img_size, img_size), np.float32)
    for part, share, colours in _draw_parts(galaxy, grid):
        fluxes = galaxy.flux * share * _band_ratios(*colours)
        light += fluxes[:, None, None] * grid.bin(part)
    if galaxy.is_seen_from_its_side and galaxy.dust_depth:
        light *= np.stack([grid.bin(passed, mean=True) for passed in _draw_dust(galaxy, grid)])
    if galaxy.companion_ratio:
        light += _draw_companion(galaxy, grid)
    return _blur(light, pixel_scale, observation or Observation())


def observe(
    galaxy: Galaxy, img_size: int, pixel_scale: float, observation: Observation | None = None, seed: int | None = None
) -> tuple[Floats, dict[str, float]]:
    """Take a picture: the galaxy, stars and galaxies around it, an artifact's fault, and the noise of the photons.

    The sky's mean is taken off. Field, fault and noise follow from ``seed``: that of the galaxy if not given.

    Returns:
        The image as from `render`, and what else is in the field: ``field_sources`` (their number) and
        ``field_flux`` (their light in r, nanomaggies).
    """
    observation = observation or Observation()
    generator = np.random.default_rng([galaxy.seed if seed is None else seed, 1])
    light = render(galaxy, img_size, pixel_scale, observation)
    field, number = _draw_field(galaxy, img_size, pixel_scale, observation, generator)
    light = light + field
    if galaxy.type == "artifact":
        light = _spoil(galaxy, light, pixel_scale, observation, generator)
    sky = np.array([_to_flux(magnitude) for magnitude in observation.sky]) * pixel_scale**2
    electrons = np.array(observation.electrons)[:, None, None]
    expected = (light + sky[:, None, None]) * electrons
    counted = generator.poisson(np.clip(expected, 0, 1e15)) / electrons - sky[:, None, None]
    return counted.astype(np.float32), {"field_sources": number, "field_flux": float(field[1].sum())}


def to_rgb(image: Floats, pixel_scale: float) -> NDArray[np.uint8]:
    """Turn g, r, z into the colours of the Legacy Surveys: asinh of Lupton et al. (2004), through astropy.

    Returns:
        (height, width, 3) uint8, first row at the top (north).
    """
    # the surveys' picture scales for nanomaggies in pixels of 0.262″, brought to brightness by the pixel's area
    scales = np.array([6.0, 3.4, 2.2]) * (0.262 / pixel_scale) ** 2
    blue, green, red = image[:, ::-1] * scales[:, None, None].astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):  # it divides by zero, then takes the other branch
        rgb: NDArray[np.uint8] = make_lupton_rgb(red, green, blue, minimum=-0.02, stretch=0.35, Q=9)
    return rgb


class _Grid:
    """Points on the sky, finer than pixels, in the axes of one galaxy: u along the major axis, v across it."""

    def __init__(self, galaxy: Galaxy, img_size: int, pixel_scale: float) -> None:
        self.img_size, self.scale = img_size, float(pixel_scale)
        points = img_size * _OVERSAMPLING
        self.step = self.scale / _OVERSAMPLING
        offsets = (np.arange(points, dtype=np.float32) - (points - 1) / 2) * self.step
        self.x, self.y = offsets[None, :], offsets[:, None]  # towards west, towards north
        self.u, self.v = _turn(self.x, self.y, galaxy.position_angle)
        width = min(_CORE_PIXELS * _OVERSAMPLING, points - points % 2)
        self.core = slice((points - width) // 2, (points + width) // 2)
        fine = width * _CORE_OVERSAMPLING
        offsets = (np.arange(fine, dtype=np.float32) - (fine - 1) / 2) * (self.step / _CORE_OVERSAMPLING)
        self.core_u, self.core_v = _turn(offsets[None, :], offsets[:, None], galaxy.position_angle)

    def in_plane(self, galaxy: Galaxy) -> tuple[Floats, Floats]:
        """Radius and angle (from the major axis) in the plane of the galaxy's disk."""
        across = self.v / galaxy.disk_axis_ratio
        return np.hypot(self.u, across), np.arctan2(across, self.u)

    def bin(self, brightness: Floats, mean: bool = False) -> Floats:
        """Sum light an arcsec² into light a pixel, or take the mean."""
        binned = cv2.resize(brightness, (self.img_size, self.img_size), interpolation=cv2.INTER_AREA)
        return np.asarray(binned if mean else binned * self.scale**2, np.float32)


def _turn(x: Floats, y: Floats, angle: float) -> tuple[Floats, Floats]:
    """Coordinates along and across a direction given from north through east (x points west, y north)."""
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    return y * cosine - x * sine, -y * sine - x * cosine


Part = tuple[Floats, float, tuple[float, float]]  # brightness an arcsec² of total 1, share of light, colours


def _draw_parts(galaxy: Galaxy, grid: _Grid) -> list[Part]:
    disk_colours = (galaxy.disk_g_r, galaxy.disk_r_z)
    bulge_colours = (galaxy.bulge_g_r, galaxy.bulge_r_z)
    parts: list[Part] = []
    if galaxy.bulge_share:
        parts.append((_draw_bulge(galaxy, grid), galaxy.bulge_share, bulge_colours))
    flat = galaxy.disk_share + galaxy.bar_share + galaxy.ring_share
    if flat and galaxy.is_seen_from_its_side:
        parts.append((_draw_edge_on_disk(galaxy, grid), flat, disk_colours))
    elif flat:
        parts += _draw_disk(galaxy, grid, disk_colours, bulge_colours)
    if galaxy.clump_share:
        parts.append((_draw_clumps(galaxy, grid), galaxy.clump_share, _shift(disk_colours, _CLUMP_COLOURS)))
    if galaxy.tail_share:
        parts.append((_draw_tails(galaxy, grid), galaxy.tail_share, disk_colours))
    return parts


def _draw_bulge(galaxy: Galaxy, grid: _Grid) -> Floats:
    profile = _SersicProfile(
        galaxy.bulge_radius, galaxy.bulge_sersic_index, galaxy.bulge_axis_ratio, galaxy.bulge_boxiness
    )
    light = profile(grid.u, grid.v)
    core = profile(grid.core_u, grid.core_v)
    width = grid.core.stop - grid.core.start
    light[grid.core, grid.core] = cv2.resize(core, (width, width), interpolation=cv2.INTER_AREA)
    return light


class _SersicProfile:
    """``I ∝ exp(−b (r/Rₑ)^(1/n))`` of total light 1; isophotes are |u|^c + |v/q|^c = r^c, c = 2 + 2 · boxiness."""

    def __init__(self, radius: float, index: float, axis_ratio: float, boxiness: float = 0.0) -> None:
        self.radius, self.index, self.axis_ratio, self.power = radius, index, axis_ratio, 2 + 2 * boxiness
        self.b = float(special.gammaincinv(2 * index, 0.5))
        area = 4 * math.gamma(1 + 1 / self.power) ** 2 / math.gamma(1 + 2 / self.power)  # of the unit isophote
        total = 2 * index * math.gamma(2 * index) / self.b ** (2 * index) * radius**2 * axis_ratio * area
        self.peak = 1 / total

    def __call__(self, u: Floats, v: Floats) -> Floats:
        if self.power == 2:
            squared = u**2 + (v / self.axis_ratio) ** 2
        else:
            powers = np.abs(u) ** self.power + np.abs(v / self.axis_ratio) ** self.power
            squared = powers ** (2 / self.power)
        return np.asarray(self.peak * np.exp(-self.b * (squared / self.radius**2) ** (0.5 / self.index)))


def _draw_disk(
    galaxy: Galaxy, grid: _Grid, disk_colours: tuple[float, float], bulge_colours: tuple[float, float]
) -> list[Part]:
    """The disk with its arms, its bar, its ring."""
    radius, angle = grid.in_plane(galaxy)
    parts: list[Part] = []
    if galaxy.disk_share:
        parts += _draw_disk_and_arms(galaxy, radius, angle, disk_colours)
    if galaxy.bar_share:
        middle = ((disk_colours[0] + bulge_colours[0]) / 2, (disk_colours[1] + bulge_colours[1]) / 2)
        parts.append((_draw_bar(galaxy, grid), galaxy.bar_share, middle))
    if galaxy.ring_share:
        parts.append((_draw_ring(galaxy, radius), galaxy.ring_share, _shift(disk_colours, _ARM_COLOURS)))
    return parts


def _draw_disk_and_arms(galaxy: Galaxy, radius: Floats, angle: Floats, colours: tuple[float, float]) -> list[Part]:
    """The smooth disk, and the light of its arms, which the smooth disk lacks where they begin."""
    length, share = galaxy.scale_length, galaxy.disk_share
    disk = np.exp(-radius / length) / (2 * np.pi * length**2 * galaxy.disk_axis_ratio)
    if not (galaxy.arm_number and galaxy.arm_contrast):
        return [(disk, share, colours)]
    start = galaxy.bar_length if galaxy.bar_share else 0.5 * length
    onset = np.clip((radius / start - 0.5) / 0.7, 0, 1)
    in_arms = disk * onset * galaxy.arm_contrast
    arms = in_arms * _arm_pattern(galaxy, radius, angle, start)
    arms *= float(in_arms.sum()) / max(float(arms.sum()), 1e-12)  # patches move light and add none
    return [(disk - in_arms, share, colours), (arms, share, _shift(colours, _ARM_COLOURS))]


def _arm_pattern(galaxy: Galaxy, radius: Floats, angle: Floats, start: float) -> Floats:
    """Von Mises profile across logarithmic spirals, ``θ = θ₀ ± ln(R/R₀) / tan(pitch)``, of mean 1 along circles."""
    phase = galaxy.bar_angle if galaxy.bar_share else galaxy.arm_phase  # arms begin at the bar's ends
    wound = np.log(np.maximum(radius, 0.05 * start) / start) / math.tan(math.radians(galaxy.arm_pitch))
    turned = angle - galaxy.arm_direction * wound - math.radians(phase)
    sharpness = _ARM_SHARPNESS * (1 + 0.3 * (2 - min(galaxy.arm_number, 4)) / 2)
    pattern = np.exp(sharpness * (np.cos(galaxy.arm_number * turned) - 1)) / float(special.i0e(sharpness))
    if galaxy.arm_roughness:
        generator = np.random.default_rng([galaxy.seed, 0])
        cells = generator.gamma(1.5, 1 / 1.5, size=(64, 64)).astype(np.float32)
        reach = 64 / 2 / (3 * galaxy.half_light_radius)  # three half-light radii hold half of the cells
        places = (31.5 + 0.5 * reach * radius * np.cos(angle), 31.5 + 0.5 * reach * radius * np.sin(angle))
        patches = cv2.remap(cells, *places, interpolation=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        pattern = pattern * (1 + galaxy.arm_roughness * (np.maximum(patches, 0) - 1))
    return np.asarray(pattern)


def _draw_edge_on_disk(galaxy: Galaxy, grid: _Grid) -> Floats:
    length = galaxy.scale_length
    # root mean squares are √3 h along the disk and π/√12 z₀ across it: their ratio is the axis ratio
    height = 6 / math.pi * length * galaxy.disk_axis_ratio
    along = np.maximum(np.abs(grid.u) / length, 1e-6)
    across = np.cosh(np.minimum(np.abs(grid.v) / height, 40))
    light = along * special.k1(along) / across**2
    return np.asarray(light / (2 * np.pi * length * height), np.float32)


def _draw_dust(galaxy: Galaxy, grid: _Grid) -> Floats:
    """Share of light that passes the lane, (bands, points, points); half the light lies in front of it."""
    length = galaxy.scale_length
    height = 0.5 * length * galaxy.disk_axis_ratio
    depth = galaxy.dust_depth * np.exp(-((grid.v / height) ** 2) - np.abs(grid.u) / (1.5 * length))
    return np.stack([0.5 + 0.5 * np.exp(-ratio * depth) for ratio in _DUST]).astype(np.float32)


def _draw_bar(galaxy: Galaxy, grid: _Grid) -> Floats:
    """``exp(−m⁴)`` in elliptical radius m: flat inside, with an end."""
    across = grid.v / galaxy.disk_axis_ratio
    angle = math.radians(galaxy.bar_angle)
    along = grid.u * math.cos(angle) + across * math.sin(angle)
    beside = across * math.cos(angle) - grid.u * math.sin(angle)
    width = galaxy.bar_length * galaxy.bar_axis_ratio
    squared = (along / galaxy.bar_length) ** 2 + (beside / width) ** 2
    area = np.pi**1.5 / 2 * galaxy.bar_length * width * galaxy.disk_axis_ratio  # ∫ exp(−m⁴) 2πm dm = π^1.5 / 2
    return np.asarray(np.exp(-(squared**2)) / area)


def _draw_ring(galaxy: Galaxy, radius: Floats) -> Floats:
    width = 0.12 * galaxy.ring_radius
    light = np.exp(-0.5 * ((radius - galaxy.ring_radius) / width) ** 2)
    return np.asarray(light / ((2 * np.pi) ** 1.5 * galaxy.ring_radius * width * galaxy.disk_axis_ratio))


def _draw_clumps(galaxy: Galaxy, grid: _Grid) -> Floats:
    generator = np.random.default_rng([galaxy.seed, 2])
    light = np.zeros_like(grid.u)
    for _ in range(galaxy.clump_number):
        u, v = generator.normal(0, 0.7 * galaxy.half_light_radius, 2) * (1, galaxy.disk_axis_ratio)
        width = galaxy.half_light_radius * generator.uniform(0.1, 0.25)
        squared = (grid.u - u) ** 2 + (grid.v - v) ** 2
        light += np.exp(squared * (-0.5 / width**2)) / (2 * np.pi * width**2)
    return np.asarray(light / max(galaxy.clump_number, 1))


def _draw_tails(galaxy: Galaxy, grid: _Grid) -> Floats:
    """Open arcs far outside the body."""
    radius = np.hypot(grid.u, grid.v) / galaxy.half_light_radius
    angle = np.arctan2(grid.v, grid.u) - math.radians(galaxy.tail_angle - galaxy.position_angle)
    wound = angle - galaxy.arm_direction * np.log(np.maximum(radius, 0.1))
    sharpness, length = 7 / galaxy.tail_number, 0.75  # of the arcs; of their light, in half-light radii
    light = np.exp(sharpness * (np.cos(galaxy.tail_number * wound) - 1) - radius / length) * radius**3
    total = 2 * math.pi * float(special.i0e(sharpness)) * math.gamma(5) * length**5
    return np.asarray(light / (total * galaxy.half_light_radius**2))


def _draw_companion(galaxy: Galaxy, grid: _Grid) -> Floats:
    angle = math.radians(galaxy.companion_angle)
    x = grid.x + galaxy.companion_separation * math.sin(angle)
    y = grid.y - galaxy.companion_separation * math.cos(angle)
    profile = _SersicProfile(galaxy.companion_radius, 1.5, galaxy.companion_axis_ratio)
    light = grid.bin(profile(*_turn(x, y, galaxy.companion_angle + 60)))
    fluxes = galaxy.flux * galaxy.companion_ratio * _band_ratios(galaxy.bulge_g_r - 0.15, galaxy.bulge_r_z - 0.15)
    return np.asarray(fluxes[:, None, None] * light, np.float32)


def _draw_field(
    galaxy: Galaxy, img_size: int, pixel_scale: float, observation: Observation, generator: np.random.Generator
) -> tuple[Floats, int]:
    """Stars and small galaxies at random places, none within 1.5 half-light radii of the centre, and their number."""
    field = np.zeros((len(BANDS), img_size, img_size), np.float32)
    fine = math.ceil(1.3 * pixel_scale / min(observation.seeing))  # points along a pixel: none falls between them
    points = img_size * fine
    offsets = (np.arange(points, dtype=np.float32) - (points - 1) / 2) * (pixel_scale / fine)
    width = img_size * pixel_scale
    faint, bright = (10 ** (0.3 * (magnitude - _FIELD_MAGNITUDES[0])) for magnitude in _FIELD_MAGNITUDES[::-1])
    number = 0
    for kind, density in _DENSITIES.items():
        for _ in range(generator.poisson(density * (width / 60) ** 2)):
            x, y = generator.uniform(-width / 2, width / 2, 2).tolist()
            magnitude = _FIELD_MAGNITUDES[0] + math.log10(generator.uniform(bright, faint)) / 0.3
            redness = generator.random()
            ratio, angle = generator.uniform(0.4, 1), generator.uniform(0, 180)
            extent = 0.0 if kind == "stars" else generator.uniform(0.5, 1.2)
            if math.hypot(x, y) < 1.5 * galaxy.effective_radius:
                continue
            colours = [low + redness * (high - low) for low, high in zip(*_STAR_COLOURS, strict=True)]
            across, along = _turn(offsets[None, :] - x, offsets[:, None] - y, angle)
            area = ratio if extent else 1.0
            squared = along**2 + (across / area) ** 2
            fluxes = _to_flux(magnitude) * _band_ratios(*colours)
            for band, seeing in enumerate(observation.seeing):
                profile = _moffat(squared, math.hypot(seeing, 2 * extent), observation.moffat_beta)
                if fine > 1:
                    binned = cv2.resize(profile, (img_size, img_size), interpolation=cv2.INTER_AREA)
                    profile = np.asarray(binned, np.float32)
                field[band] += float(fluxes[band]) * pixel_scale**2 / area * profile
            number += 1
    return field, number


def _spoil(
    galaxy: Galaxy, light: Floats, pixel_scale: float, observation: Observation, generator: np.random.Generator
) -> Floats:
    """Put a saturated star with its spikes, or the trail of a satellite, across the picture."""
    size = light.shape[-1]
    offsets = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * pixel_scale
    width = size * pixel_scale
    if galaxy.fault == "star":
        x, y = (width * generator.uniform(-0.1, 0.1, 2)).tolist()
        along, across = _turn(offsets[None, :] - x, offsets[:, None] - y, 45)
        flux = _to_flux(generator.uniform(10, 12.5))
        profile = _moffat(along**2 + across**2, 1.3, 2.2)
        for one, other in ((along, across), (across, along)):
            spike = np.exp(-np.abs(other) / 0.7) / (1 + (one / (0.12 * width)) ** 2)
            profile = profile + 3e-3 * spike
        ratios = _band_ratios(redness := generator.uniform(0.3, 1.0), 0.7 * redness)
    else:
        angle, place = generator.uniform(0, 180), generator.uniform(-0.2, 0.2) * width
        _, across = _turn(offsets[None, :], offsets[:, None], angle)
        profile = np.exp(-0.5 * ((across - place) / (0.6 * observation.seeing[1])) ** 2)
        flux = 10 ** generator.uniform(-0.2, 0.8)
        ratios = np.where(np.arange(len(BANDS)) == generator.integers(len(BANDS)), 1.0, 0.2)  # bands are taken in turn
    return light + (flux * pixel_scale**2 * ratios[:, None, None] * profile).astype(np.float32)


def _blur(light: Floats, pixel_scale: float, observation: Observation) -> Floats:
    return np.stack(
        [
            cv2.filter2D(band, -1, _seeing_kernel(seeing, pixel_scale, observation), borderType=cv2.BORDER_CONSTANT)
            for band, seeing in zip(light, observation.seeing, strict=True)
        ]
    )


def _seeing_kernel(seeing: float, pixel_scale: float, observation: Observation) -> Floats:
    """A star's profile on pixels, of sum 1, out to three full widths."""
    half = max(1, int(np.ceil(3 * seeing / pixel_scale)))
    fine = 5  # points along a pixel: a narrow star must not fall between them
    offsets = (np.arange((2 * half + 1) * fine) - ((2 * half + 1) * fine - 1) / 2) * pixel_scale / fine
    profile = _moffat(offsets[None, :] ** 2 + offsets[:, None] ** 2, seeing, observation.moffat_beta)
    kernel = profile.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean(axis=(1, 3))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _moffat(squared: NDArray[np.floating[Any]], width: float, beta: float) -> Floats:
    """Moffat (1969) profile of total 1 at squared radii, with its full width at half maximum."""
    alpha = width / (2 * math.sqrt(2 ** (1 / beta) - 1))
    profile = (beta - 1) / (np.pi * alpha**2) * (1 + squared / alpha**2) ** -beta
    return np.asarray(profile, np.float32)


def _to_flux(magnitude: float) -> float:
    return float(10 ** (0.4 * (22.5 - magnitude)))


def _band_ratios(g_r: float, r_z: float) -> NDArray[np.float64]:
    """Light in g, r and z over that in r."""
    return np.asarray(10 ** (0.4 * np.array([-g_r, 0.0, r_z])))


def _shift(colours: tuple[float, float], by: tuple[float, float]) -> tuple[float, float]:
    return colours[0] + by[0], colours[1] + by[1]
