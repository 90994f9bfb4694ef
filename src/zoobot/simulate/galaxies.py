"""What a simulated galaxy is: its physical parameters, and the population they are drawn from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from zoobot.errors import SettingError

__all__ = ["GALAXY_TYPES", "KINDS", "Galaxy", "draw_galaxy"]

# All shares are choices, which favour what is rare in the sky, so that small surveys hold enough of everything.
GALAXY_TYPES = {
    "elliptical": 0.22,
    "lenticular": 0.11,
    "spiral": 0.46,
    "irregular": 0.06,
    "merger": 0.11,
    "artifact": 0.04,
}
FAULTS = ("star", "trail")
KINDS = (
    *("spiral", "barred spiral", "ringed spiral", "edge-on disk"),
    *("lenticular", "barred lenticular", "ringed lenticular", "elliptical"),
    *("merger", "irregular", "artifact"),
)
EDGE_ON_INCLINATION = 78.0  # degrees, from which a disk is drawn as seen from its side

Name = TypeVar("Name", str, int)

_MAGNITUDES = (14.0, 17.8)
_BAR_SHARE = {"spiral": 0.4, "lenticular": 0.4}
_RING_SHARE = {"spiral": 0.1, "lenticular": 0.12}
_ARM_NUMBERS = {1: 0.09, 2: 0.5, 3: 0.18, 4: 0.12, 5: 0.06, 6: 0.05}


@dataclass(frozen=True)
class Galaxy:
    """One galaxy. Angles in degrees, lengths in arcsec, light as shares of the galaxy's own in the r band.

    What is 0 is not there: ``Galaxy(magnitude=16)`` is a round exponential disk and nothing else. Fields named
    ``…_g_r`` and ``…_r_z`` are colours in magnitudes.

    Raises:
        SettingError: a number is outside what it may be, or shares do not add up.
    """

    type: str = "spiral"
    """One of ``GALAXY_TYPES``; only an artifact's changes what is drawn."""
    magnitude: float = 16.0
    """AB magnitude in r of all the galaxy's light, before dust, companion not counted."""
    half_light_radius: float = 4.0
    """Of the disk: 1.678 scale lengths, seen from above. Clumps and tails go by it too."""
    position_angle: float = 0.0
    """Of the major axis, from north through east (north is up, east is left)."""
    inclination: float = 0.0
    """Of the disk: 0 is face-on, 90 edge-on."""
    disk_thickness: float = 0.15
    """Axis ratio of the disk seen from its side, by second moments."""
    disk_g_r: float = 0.45
    """Colour g − r of the disk, in magnitudes; its arms are bluer by 0.3."""
    disk_r_z: float = 0.4
    bulge_share: float = 0.0
    bulge_radius: float = 1.0
    """Half-light radius along the major axis."""
    bulge_sersic_index: float = 2.0
    bulge_axis_ratio: float = 1.0
    bulge_boxiness: float = 0.0
    """0: elliptical isophotes; 1: nearly boxes. Of a disk seen from its side, usually."""
    bulge_g_r: float = 0.8
    bulge_r_z: float = 0.65
    bar_share: float = 0.0
    bar_length: float = 3.0
    """From the centre to its end, in the plane of the disk."""
    bar_axis_ratio: float = 0.3
    bar_angle: float = 0.0
    """From the major axis, in the plane of the disk."""
    arm_number: int = 0
    arm_pitch: float = 20.0
    """Angle between arm and circle: small ones wind tightly."""
    arm_contrast: float = 0.0
    """Share of the disk's light that lies in its arms, beyond the inner disk."""
    arm_direction: int = 1
    """1 or −1: which way round they wind."""
    arm_phase: float = 0.0
    arm_roughness: float = 0.0
    """0: smooth arms; 1: broken into patches."""
    ring_share: float = 0.0
    ring_radius: float = 5.0
    dust_depth: float = 0.0
    """Optical depth in r of the dust lane of a disk seen from its side."""
    clump_share: float = 0.0
    clump_number: int = 0
    tail_share: float = 0.0
    """Light in tidal tails."""
    tail_number: int = 0
    tail_angle: float = 0.0
    companion_ratio: float = 0.0
    """Light of the companion over the galaxy's own."""
    companion_separation: float = 6.0
    companion_angle: float = 0.0
    """Direction from the galaxy, from north through east."""
    companion_radius: float = 2.0
    companion_axis_ratio: float = 0.8
    fault: str = "star"
    """Of an artifact: a saturated ``star`` that fills the picture, or the ``trail`` of a satellite."""
    seed: int = 0
    """Of what has no parameter of its own: patches of arms, places of clumps."""

    def __post_init__(self) -> None:
        """Check it."""
        for name, words in {"type": tuple(GALAXY_TYPES), "fault": FAULTS}.items():
            if getattr(self, name) not in words:
                raise SettingError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(words)}.")
        numbers = {field.name: kind for field in fields(self) for kind in (int, float) if field.type is kind}
        for name, kind in numbers.items():
            value = getattr(self, name)
            least, most = _RANGES.get(name) or _RANGES.get(name.rsplit("_", 1)[-1]) or (-1e4, 1e4)
            whole = kind is int
            if isinstance(value, bool) or not isinstance(
                value, (int, np.integer) if whole else (int, float, np.number)
            ):
                raise SettingError(f"{name}: got {value!r}, expected a {'whole ' * whole}number.")
            if not least <= value <= most:
                raise SettingError(f"{name}: got {value!r}, expected {least:g} to {most:g}.")
            object.__setattr__(self, name, kind(value))  # numpy's double numbers would make arrays double
        if self.arm_direction == 0:
            raise SettingError("arm_direction: got 0, expected 1 or -1.")
        for share, number in (("clump_share", "clump_number"), ("tail_share", "tail_number")):
            if getattr(self, share) and not getattr(self, number):
                raise SettingError(f"{number}: got 0, expected at least 1, since {share} is above 0.")
        if self.disk_share < 0:
            raise SettingError(
                f"bulge, bar, ring, clump and tail shares: got {1 - self.disk_share:g} together, expected at most 1."
            )

    @property
    def disk_share(self) -> float:
        """What the other parts leave for the disk and its arms."""
        rest = 1 - self.bulge_share - self.bar_share - self.ring_share - self.clump_share - self.tail_share
        return 0.0 if abs(rest) < 1e-9 else rest

    @property
    def effective_radius(self) -> float:
        """How large it looks: the half-light radius of its disk, or of its bulge where that is all there is."""
        return self.bulge_radius if self.bulge_share == 1 else self.half_light_radius

    @property
    def flux(self) -> float:
        """Light in r, in nanomaggies (magnitude 22.5 is 1)."""
        return float(10 ** (0.4 * (22.5 - self.magnitude)))

    @property
    def disk_axis_ratio(self) -> float:
        """Of the projected disk, ``q² = cos²i (1 − q₀²) + q₀²`` with thickness q₀ (Hubble 1926)."""
        thickness = self.disk_thickness
        return float(np.sqrt(np.cos(np.radians(self.inclination)) ** 2 * (1 - thickness**2) + thickness**2))

    @property
    def axis_ratio(self) -> float:
        """Of the whole, weighted by light: what an eye sees of bulge and disk together."""
        return self.bulge_share * self.bulge_axis_ratio + (1 - self.bulge_share) * self.disk_axis_ratio

    @property
    def is_seen_from_its_side(self) -> bool:
        """Whether the disk is drawn edge-on: no arms, but a dust lane."""
        return self.inclination >= EDGE_ON_INCLINATION

    @property
    def kind(self) -> str:
        """One of ``KINDS``: the type, and what is most striking about it."""
        if self.type not in ("spiral", "lenticular"):
            return self.type
        if self.is_seen_from_its_side:
            return "edge-on disk"
        if self.bar_share:
            return f"barred {self.type}"
        return f"ringed {self.type}" if self.ring_share else self.type

    @property
    def scale_length(self) -> float:
        """Of the exponential disk, in arcsec."""
        return self.half_light_radius / 1.678


# by a field's name, or the last word of it: what its numbers may be
_RANGES = {
    "magnitude": (-30.0, 60.0),
    "companion_ratio": (0.0, 10.0),
    "direction": (-1, 1),
    "seed": (0, 2**63),
    "share": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "roughness": (0.0, 1.0),
    "boxiness": (0.0, 1.0),
    "ratio": (0.01, 1.0),
    "radius": (1e-3, 1e4),
    "length": (1e-3, 1e4),
    "thickness": (0.01, 1.0),
    "index": (0.3, 8.0),
    "pitch": (1.0, 89.0),
    "number": (0, 100),
    "inclination": (0.0, 90.0),
    "depth": (0.0, 100.0),
    "separation": (0.0, 1e4),
}


def draw_galaxy(generator: np.random.Generator) -> Galaxy:
    """Draw a galaxy from the population.

    Its distributions are choices, made by eye: types as in ``GALAXY_TYPES``; magnitudes from 14 to 17.8 with counts
    rising as 10^0.3m, flatter than the sky's 10^0.6m so that some are bright; sizes log-normal around 4.5″ at magnitude
    17.5 and larger when brighter, ellipticals and mergers a little smaller; disks of spirals and lenticulars turned
    every way (uniform cos i), those of mergers and irregulars never from their side; Sérsic indices near 4 in
    ellipticals and lower in other bulges, boxy ones only where a disk is seen from its side; colours like those of the
    red sequence and the blue cloud; pitch angles of 8° to 40°.

    >>> draw_galaxy(np.random.default_rng(1)).type in GALAXY_TYPES
    True
    """
    kind = _choose(generator, GALAXY_TYPES)
    low, high = (10 ** (0.3 * (m - _MAGNITUDES[0])) for m in _MAGNITUDES)
    magnitude = _MAGNITUDES[0] + np.log10(generator.uniform(low, high)) / 0.3
    size = 4.5 * 10 ** (-0.14 * (magnitude - 17.5) + generator.normal(0, 0.1))
    drawn: dict[str, Any] = {
        "type": kind,
        "magnitude": magnitude,
        "half_light_radius": size,
        "position_angle": generator.uniform(0, 180),
        "inclination": np.degrees(np.arccos(generator.uniform(0, 1))),
        "disk_thickness": generator.uniform(0.1, 0.2),
        "disk_g_r": generator.normal(0.45, 0.07),
        "disk_r_z": generator.normal(0.38, 0.05),
        "bulge_g_r": generator.normal(0.8, 0.04),
        "bulge_r_z": generator.normal(0.68, 0.04),
        "arm_phase": generator.uniform(0, 360),
        "arm_direction": int(generator.choice([-1, 1])),
        "companion_angle": generator.uniform(0, 360),
        "seed": int(generator.integers(2**31)),
    }
    if kind in ("elliptical", "artifact"):
        drawn |= _draw_elliptical(generator, size)
        drawn["fault"] = "star" if generator.random() < 0.6 else "trail"
    elif kind == "merger":
        drawn |= _draw_merger(generator, size)
    elif kind == "irregular":
        drawn |= _draw_irregular(generator)
    else:
        drawn |= _draw_disk_galaxy(generator, size, kind)
    if drawn["inclination"] < EDGE_ON_INCLINATION:
        drawn["bulge_boxiness"] = 0.0
    return Galaxy(**{name: _plain(value) for name, value in drawn.items()})  # type: ignore[arg-type]


def _draw_elliptical(generator: np.random.Generator, size: float) -> dict[str, float]:
    return {
        "half_light_radius": 0.85 * size,
        "inclination": 0.0,
        "bulge_share": 1.0,
        "bulge_radius": 0.85 * size,
        "bulge_sersic_index": np.clip(generator.normal(4, 0.8), 2, 6),
        "bulge_axis_ratio": np.clip(1 - abs(generator.normal(0, 0.35)), 0.28, 1),
    }


def _draw_disk_galaxy(generator: np.random.Generator, size: float, kind: str) -> dict[str, float | int]:
    spiral = kind == "spiral"
    drawn: dict[str, float | int] = {
        "bulge_share": min(generator.beta(1.1, 5) if spiral else generator.beta(4, 5), 0.75),
        "bulge_radius": size * generator.uniform(0.2, 0.4),
        "bulge_sersic_index": generator.uniform(1, 2.5) if spiral else generator.uniform(1.5, 3.5),
        "bulge_axis_ratio": generator.uniform(0.7, 1),
        "bulge_boxiness": generator.uniform(0.5, 1) if generator.random() < 0.35 else 0.0,
        "dust_depth": generator.uniform(0.5, 3) if spiral and generator.random() < 0.6 else 0.0,
    }
    if not spiral:
        drawn |= {"disk_g_r": generator.normal(0.72, 0.04), "disk_r_z": generator.normal(0.6, 0.04)}
    if generator.random() < _BAR_SHARE[kind]:
        drawn["bulge_share"] *= 0.6  # it took part of the light
        drawn |= {
            "bar_share": (1 - drawn["bulge_share"]) * generator.uniform(0.12, 0.38),
            "bar_length": size * generator.uniform(0.6, 1.0),
            "bar_axis_ratio": generator.uniform(0.2, 0.4),
            "bar_angle": generator.uniform(0, 180),
        }
    if generator.random() < _RING_SHARE[kind]:
        drawn |= {"ring_share": 0.2 * generator.uniform(0.5, 1.3), "ring_radius": size * generator.uniform(1.0, 1.5)}
    if spiral:
        drawn |= {
            "arm_number": _choose(generator, _ARM_NUMBERS),
            "arm_pitch": generator.uniform(8, 40),
            "arm_contrast": generator.uniform(0.25, 0.8),
            "arm_roughness": generator.uniform(0, 0.6) if generator.random() < 0.75 else generator.uniform(0.6, 1),
        }
    drawn["bulge_share"] = min(drawn["bulge_share"], 0.9 - drawn.get("ring_share", 0) - drawn.get("bar_share", 0))
    return drawn


def _draw_merger(generator: np.random.Generator, size: float) -> dict[str, float | int]:
    """Draw two galaxies at some stage between a first disturbance and one body with tails."""
    two_bodies = generator.random() < 0.8
    disk = generator.random() < 0.7
    main: dict[str, float | int] = {
        "half_light_radius": 0.85 * size,
        "inclination": np.degrees(np.arccos(generator.uniform(0.3, 1))),
        "bulge_share": generator.uniform(0.1, 0.4) if disk else 0.6,
        "bulge_radius": size * (0.3 if disk else 0.6),
        "bulge_sersic_index": generator.uniform(1, 4),
        "tail_share": generator.uniform(0.1, 0.3) if two_bodies else generator.uniform(0.25, 0.4),
        "tail_number": int(generator.integers(1, 3)),
        "tail_angle": generator.uniform(0, 360),
    }
    if disk:
        main |= {"arm_number": 2, "arm_pitch": generator.uniform(20, 40), "arm_contrast": generator.uniform(0, 0.4)}
    if two_bodies:
        main |= {
            "companion_ratio": generator.uniform(0.3, 1),
            "companion_separation": size * generator.uniform(1.2, 2.8),
            "companion_radius": size * generator.uniform(0.35, 0.7),
            "companion_axis_ratio": generator.uniform(0.5, 1),
        }
    return main


def _draw_irregular(generator: np.random.Generator) -> dict[str, float | int]:
    return {
        "inclination": np.degrees(np.arccos(generator.uniform(0.35, 1))),
        "disk_thickness": 0.2,
        "disk_g_r": generator.normal(0.3, 0.05),
        "disk_r_z": generator.normal(0.2, 0.05),
        "clump_share": generator.uniform(0.3, 0.6),
        "clump_number": int(generator.integers(4, 10)),
    }


def _choose(generator: np.random.Generator, shares: Mapping[Name, float]) -> Name:
    names = list(shares)
    return names[int(generator.choice(len(names), p=np.array(list(shares.values())) / sum(shares.values())))]


def _plain(value: "float | int | str") -> "float | int | str":
    """Numbers as Python's own: a drawn galaxy prints and saves like one written by hand."""
    return value if isinstance(value, (str, int)) else float(value)
