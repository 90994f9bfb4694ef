"""What an attentive eye makes of a simulated galaxy, and which answer that suggests to each question.

How plainly each feature is seen, from 0 to 1, depends on how strong it is, how well it is resolved and how far it
stands out of the noise. Each answer to a question describes an impression, a point in the space of a few features;
the nearer a galaxy's impression lies to it, the more it appeals. All constants are choices; docs/simulation.md compares
how much these volunteers disagree with how much real ones do.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoobot.errors import SchemaError
from zoobot.schemas import Question, Schema
from zoobot.simulate.galaxies import Galaxy
from zoobot.simulate.rendering import Observation

__all__ = ["Impression", "appeals", "check_is_known", "form_impression"]


@dataclass(frozen=True)
class Impression:
    """How plainly each feature is seen: 0 not at all, 1 as plainly as can be."""

    featured: float
    """Anything that is not smooth."""
    spiral: float
    bar: float
    ring: float
    clumps: float
    edge_on: float
    dust: float
    bulge: float
    """Its prominence, the root of its share of light; 0.5 where nothing can be told."""
    boxiness: float
    roundness: float
    """Axis ratio of the blurred image."""
    winding: float
    """Pitch angle over 40°: small is tight; 0.5 where no arms are seen."""
    arm_number: float
    arm_clarity: float
    """How well arms can be counted."""
    disturbance: float
    companion: float
    star: float
    """A star that fills the picture."""
    trail: float


# How far apart in a feature two impressions must lie to be told apart
_WIDTHS = {
    "featured": 0.26,
    "spiral": 0.22,
    "bar": 0.26,
    "ring": 0.3,
    "clumps": 0.3,
    "edge_on": 0.33,
    "dust": 0.3,
    "bulge": 0.14,
    "boxiness": 0.4,
    "roundness": 0.1,
    "winding": 0.2,
    "arm_number": 0.45,
    "arm_clarity": 0.25,
    "disturbance": 0.24,
    "companion": 0.35,
    "star": 0.3,
    "trail": 0.3,
}
_Point = dict[str, float]
# Per question, without its campaign's suffix, what each answer describes; different trees word answers differently
_ANSWERS: dict[str, dict[str, _Point]] = {
    "smooth-or-featured": {
        "smooth": {"featured": 0.08, "star": 0, "trail": 0},
        "featured-or-disk": {"featured": 0.72, "star": 0, "trail": 0},
        "features": {"featured": 0.72, "star": 0, "trail": 0},
        **{name: {"star": 0.75, "trail": 0.75} for name in ("artifact", "problem", "star-artifact-zoom")},
    },
    "disk-edge-on": {"yes": {"edge_on": 1}, "no": {"edge_on": 0}},
    "has-spiral-arms": {"yes": {"spiral": 0.65}, "no": {"spiral": 0.0}},
    "bar": {"strong": {"bar": 0.9}, "weak": {"bar": 0.45}, "no": {"bar": 0}, "yes": {"bar": 0.5}},
    "bulge-size": {
        **{name: {"bulge": 0.05} for name in ("none", "no")},
        "just-noticeable": {"bulge": 0.35},
        "small": {"bulge": 0.3},
        "moderate": {"bulge": 0.5},
        "obvious": {"bulge": 0.6},
        "large": {"bulge": 0.68},
        "dominant": {"bulge": 0.9},
    },
    "how-rounded": {
        **{name: {"roundness": 0.93} for name in ("round", "completely")},
        "in-between": {"roundness": 0.62},
        **{name: {"roundness": 0.28} for name in ("cigar-shaped", "cigar")},
    },
    "edge-on-bulge": {
        **{name: {"bulge": 0.14, "boxiness": 0} for name in ("none", "no-bulge", "no")},
        **{name: {"bulge": 0.55, "boxiness": 0} for name in ("rounded", "round", "yes")},
        "boxy": {"bulge": 0.55, "boxiness": 1},
    },
    "spiral-winding": {"tight": {"winding": 0.25}, "medium": {"winding": 0.52}, "loose": {"winding": 0.85}},
    "spiral-arm-count": {
        **{str(number): {"arm_number": number, "arm_clarity": 0.9} for number in (1, 2, 3, 4)},
        **{name: {"arm_number": 5.3, "arm_clarity": 0.9} for name in ("more-than-4", "5-plus")},
        "cant-tell": {"arm_clarity": 0.0},
    },
    "merging": {
        **{name: {"disturbance": 0, "companion": 0} for name in ("none", "neither")},
        "minor-disturbance": {"disturbance": 0.4, "companion": 0},
        **{name: {"disturbance": 0.85, "companion": 0.1} for name in ("major-disturbance", "tidal-debris")},
        "merger": {"disturbance": 0.6, "companion": 0.95},
        "both": {"disturbance": 0.95, "companion": 0.9},
    },
    "something-odd": {"yes": {"disturbance": 0.45, "companion": 0.4}, "no": {"disturbance": 0, "companion": 0}},
    "odd-feature": {
        "ring": {"ring": 1},
        "dust-lane": {"dust": 1},
        "merger": {"companion": 1},
        "disturbed": {"disturbance": 0.8, "companion": 0},
        "irregular": {"clumps": 1},
        "lens-or-arc": {"ring": 0.5, "disturbance": 0.9, "companion": 0.9},
        "other": {"ring": 0.4, "dust": 0.4},
    },
    "ring": {"yes": {"ring": 0.8}, "no": {"ring": 0}},
    "clumps": {"yes": {"clumps": 0.8}, "no": {"clumps": 0}},
    "problem": {
        "star": {"star": 1, "trail": 0},
        "artifact": {"star": 0, "trail": 1},
        **{name: {"star": 0, "trail": 0} for name in ("zoom", "bad-zoom")},
    },
    "artifact": {
        "satellite": {"trail": 1, "star": 0},
        "diffraction": {"star": 0.9, "trail": 0},
        "saturation": {"star": 1, "trail": 0},
        "scattered": {"star": 0.5, "trail": 0},
        "ray": {"trail": 0.4, "star": 0},
        "ghost": {"star": 0.4, "trail": 0.2},
        "other": {"star": 0.2, "trail": 0.2},
    },
}
_CAMPAIGNS = ("gz2", "ukidss", "hubble", "candels", "dr5", "dr8", "dr12", "cd", "jwst", "euclid")
_SAME = {"bulge-shape": "edge-on-bulge", "clumpy-appearance": "clumps"}


def form_impression(
    galaxy: Galaxy, img_size: int, pixel_scale: float, observation: Observation | None = None
) -> Impression:
    """See a galaxy as an attentive volunteer does, in a picture of so many pixels of ``pixel_scale`` arcsec.

    Detail of size L is resolved as ``L² / (L² + (0.4 blur)²)``, blur being the seeing and the pixels together; light
    stands out as ``s / (s + 2)`` of its signal to noise s in a resolution element at the half-light radius.
    """
    observation = observation or Observation()
    blur = float(np.hypot(observation.seeing[1], 2 * pixel_scale))
    size = galaxy.effective_radius
    depth = _depth(galaxy, blur, observation)
    flat = 0.0 if galaxy.is_seen_from_its_side else galaxy.disk_axis_ratio**0.5  # tilted features hide one another

    def seen(strength: float, detail: float) -> float:
        return float(np.clip(strength, 0, 1) * detail**2 / (detail**2 + (0.4 * blur) ** 2) * depth)

    spacing = 2 * np.pi * size * np.tan(np.radians(galaxy.arm_pitch)) / max(galaxy.arm_number, 1)
    arms = seen(1.5 * galaxy.arm_contrast * galaxy.disk_share * flat * bool(galaxy.arm_number), 0.3 * spacing)
    bar = seen(4.5 * galaxy.bar_share / max(1 - galaxy.bulge_share, 0.1) * flat, galaxy.bar_length * 0.5)
    ring = seen(6 * galaxy.ring_share * flat, 0.3 * galaxy.ring_radius)
    clumps = seen(2 * galaxy.clump_share, 0.3 * size)
    tails = float(np.clip(4 * galaxy.tail_share, 0, 1)) * depth
    companion = float(min(1, 2.5 * galaxy.companion_ratio)) * depth
    has_disk = 1 - galaxy.bulge_share
    shape = min(1.0, 1.2 * seen(1, 0.5 * size))  # how plainly the galaxy's own shape is seen
    edge_on = float(1 / (1 + np.exp((galaxy.disk_axis_ratio - 0.3) / 0.04))) * min(1, 2.5 * has_disk) * shape
    if galaxy.clump_share:  # ragged outlines are no disks
        edge_on *= 0.3
    dust = seen(0.5 * galaxy.dust_depth * galaxy.is_seen_from_its_side, 0.6 * galaxy.disk_thickness * size)
    tilted = 0.45 * has_disk * shape * (1 - galaxy.disk_axis_ratio) * (not galaxy.is_seen_from_its_side)
    plain = 1 - np.array([1.1 * arms, 0.8 * bar, 0.8 * ring, clumps, 0.85 * edge_on * has_disk, 0.6 * tails, tilted])
    plain = np.append(plain, 1 - 0.35 * companion)
    fault = galaxy.type == "artifact"
    clarity = float(np.clip(2 * arms, 0, 1) * (1 - 0.8 * galaxy.arm_roughness**2))
    star = fault and galaxy.fault == "star"
    width = (galaxy.axis_ratio * size) ** 2
    return Impression(
        featured=float(1 - np.prod(np.clip(plain, 0, 1))),
        spiral=arms,
        bar=bar,
        ring=ring,
        clumps=clumps,
        edge_on=edge_on,
        dust=dust,
        bulge=0.5 + (galaxy.bulge_share**0.5 - 0.5) * shape,
        boxiness=float(galaxy.bulge_boxiness * seen(1, galaxy.bulge_radius)),
        roundness=float(np.sqrt((width + (0.4 * blur) ** 2) / (size**2 + (0.4 * blur) ** 2))),
        winding=float(0.5 + (galaxy.arm_pitch / 40 - 0.5) * min(1, 3 * arms)),
        arm_number=float(galaxy.arm_number),
        arm_clarity=clarity,
        disturbance=float(np.clip(tails + 0.3 * companion + 0.35 * clumps, 0, 1)),
        companion=companion,
        star=float(star),
        trail=float(fault and not star),
    )


def _depth(galaxy: Galaxy, blur: float, observation: Observation) -> float:
    """How far the light around the half-light radius stands out of the noise, 0 to 1."""
    ratio = max(galaxy.axis_ratio, 0.1)
    brightness = 0.35 * galaxy.flux / (2 * np.pi * galaxy.effective_radius**2 * ratio)
    signal = brightness * blur * np.sqrt(np.pi / 4) / observation.noise("r")
    return float(signal / (signal + 2))


def check_is_known(schema: Schema) -> None:
    """Check that simulated volunteers can answer every question of a decision tree.

    Raises:
        SchemaError: there are questions, or answers, that they do not know.
    """
    unknown = [question for question in schema.questions if _find_points(question) is None]
    if unknown:
        named = [f"{question.name} ({', '.join(answer.text for answer in question.answers)})" for question in unknown]
        raise SchemaError(
            f"simulated volunteers cannot answer {'; '.join(named)} of decision tree {schema.name}; they know the "
            f"questions {', '.join(_ANSWERS)}, with the answers of Galaxy Zoo's trees; try gz_decals or gz2"
        )


def appeals(impression: Impression, schema: Schema) -> NDArray[np.float64]:
    """How far each answer describes a galaxy: −½ Σ ((impression − description) / width)² over its features.

    Returns:
        (answers,) at most 0, in the order of the schema's ``label_cols``: log-odds within a question.

    Raises:
        SchemaError: there are questions, or answers, that simulated volunteers do not know.
    """
    described, matters = _describe(schema)
    seen = np.array([getattr(impression, name) for name in _WIDTHS])
    distances = (seen - described) / np.array(list(_WIDTHS.values()))
    return np.asarray(-0.5 * (distances**2 * matters).sum(axis=1))


@functools.lru_cache(maxsize=1)
def _describe(schema: Schema) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What each answer describes, (answers, features), and which features matter to it."""
    check_is_known(schema)
    points = [point for question in schema.questions for point in _find_points(question) or ()]
    described = np.array([[point.get(name, 0.0) for name in _WIDTHS] for point in points])
    return described, np.array([[name in point for name in _WIDTHS] for point in points])


def _find_points(question: Question) -> list[_Point] | None:
    """What the answers of a question describe, in their order."""
    for name, answers in {**_ANSWERS, **{other: _ANSWERS[same] for other, same in _SAME.items()}}.items():
        is_same = question.name == name or question.name.removeprefix(f"{name}-") in _CAMPAIGNS
        if is_same and all(answer.text in answers for answer in question.answers):
            return [answers[answer.text] for answer in question.answers]
    return None
