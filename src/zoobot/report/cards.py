"""Which galaxies a report shows, and what it shows of each: image, paths through the tree, posteriors and votes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoobot.data import images
from zoobot.data.fits_images import FitsConfig
from zoobot.errors import ImageError
from zoobot.predictions.catalogue import CREDIBILITY
from zoobot.report import plots
from zoobot.report.embed import embed_figure, embed_image
from zoobot.report.galaxies import Titles, mean_width, pick, walk
from zoobot.report.run import Run
from zoobot.schemas import Question, Schema
from zoobot.stats import agreement
from zoobot.stats.concentrations import Floats, spread_over_answers, sum_questions

__all__ = ["make_sections"]

_IMAGE_SIZE = 288  # pixels; shown at half of that
_MOST_CANDIDATES = 5_000  # galaxies whose path is followed to pick those of different kinds
_COSTLY = 0.15  # share of a galaxy's cost from which a question is shown though it is not on the path


@dataclass(frozen=True)
class _Kind:
    """Galaxies of one kind, and the measure by which they were chosen."""

    id: str
    title: str
    note: str
    galaxies: list[int]
    measure: str
    values: Floats
    costs: Floats | None = None  # (galaxies, questions): show the questions that cost most, too


def make_sections(run: Run, count: int) -> list[dict[str, Any]]:
    """Choose ``count`` galaxies of each kind, typical, best, worst and most uncertain, and make their cards."""
    return [
        {
            "id": kind.id,
            "title": kind.title,
            "note": kind.note,
            "cards": [_make_card(run, galaxy, kind) for galaxy in kind.galaxies],
        }
        for kind in _choose(run, count)
    ]


def _choose(run: Run, count: int) -> list[_Kind]:
    costs, volunteers = _costs(run), run.volunteers
    if run.concentrations is not None:
        name = "relative loss"
        meaning = (
            "relative loss: 0 is as good as knowing how the volunteers’ votes will divide, 1 no better than taking "
            "all divisions for equally likely, more is sure and wrong"
        )
        loss = agreement.relative_loss(run.votes, run.concentrations, run.schema.question_index_groups)
    else:
        name = "mean error"
        meaning = "mean absolute error of the vote fractions (without concentrations there is no loss)"
        loss = costs.sum(axis=1) / np.where(run.votes.any(axis=1), run.votes.sum(axis=1), np.nan)
    width = mean_width(run.lower, run.upper, run.schema.proportion_asked(run.fractions), run.schema)
    enough = np.flatnonzero((volunteers > 0) & (volunteers >= np.median(volunteers) / 2))
    by_loss = enough[np.argsort(loss[enough], kind="stable")]
    by_distance = enough[np.argsort(np.abs(loss[enough] - np.median(loss[enough])), kind="stable")]
    typical, best = _pick_paths(run, by_distance, count), _pick_paths(run, by_loss, count)
    uncertain = _pick_paths(run, np.argsort(-width, kind="stable"), count)
    return [
        _Kind("typical", "Typical galaxies", f"Nearest to the median of the {meaning}. Each follows another path "
              "through the tree. Galaxies with less than half of the usual number of votes are left out.",
              typical, name, loss),
        _Kind("best", "The best predicted", f"Lowest {name}, each of another path.", best, name, loss),
        _Kind("worst", "The worst predicted", f"Highest {name}. Shown are also the questions that cost most.",
              by_loss[::-1][:count].tolist(), name, loss, costs),
        _Kind("uncertain", "The most uncertain", f"Widest {CREDIBILITY:.0%} intervals, averaged over the questions by "
              "how likely each is asked; each of another path. Votes had no say in the choice.",
              uncertain, "mean width", width),
    ]  # fmt: skip


def _costs(run: Run) -> Floats:
    """What each question adds to a galaxy's loss or, without concentrations, error: (galaxies, questions)."""
    groups = run.schema.question_index_groups
    if run.concentrations is not None:
        return agreement.excess_loss(run.votes, run.concentrations, groups)
    expected = run.fractions * spread_over_answers(sum_questions(run.votes, groups), groups)
    sizes = np.array([last - first + 1 for first, last in groups])
    errors: Floats = sum_questions(np.abs(expected - run.votes), groups) / sizes
    return errors


def _pick_paths(run: Run, order: NDArray[np.intp], count: int) -> list[int]:
    candidates = [int(galaxy) for galaxy in order[:_MOST_CANDIDATES]]
    return pick(candidates, lambda galaxy: _path(run.schema, run.fractions[galaxy]), count)


def _path(schema: Schema, fractions: Floats) -> str:
    titles = Titles(schema)
    return " → ".join(_step(titles, question, leading) for question, leading in walk(schema, fractions))


def _step(titles: Titles, question: Question, leading: int) -> str:
    """Say what an answer means: yes and no need their question."""
    answer = titles.answers(question)[leading]
    return f"{titles.question(question).lower()}: {answer}" if answer in ("yes", "no") else answer


def _make_card(run: Run, galaxy: int, kind: _Kind) -> dict[str, Any]:
    """Gather what is shown of a galaxy."""
    id_str = str(run.matched.predicted.index[galaxy])
    image, reason = _read_image(run, id_str)
    costly = {} if kind.costs is None else _find_costly(run.schema, kind.costs[galaxy])
    shown = {question for question, _ in walk(run.schema, run.fractions[galaxy])} | costly.keys()
    questions = [question for question in run.schema.questions if question in shown]
    figure = plots.draw_posteriors(run.posterior(galaxy), run.schema, questions)
    titles = Titles(run.schema)
    return {
        "id_str": id_str,
        "image": image,
        "reason": reason,
        "measure": f"{kind.measure} {kind.values[galaxy]:.2f}",
        "costly": [(titles.question(question), f"{share:.0%}") for question, share in costly.items()],
        "predicted_path": _path(run.schema, run.fractions[galaxy]),
        "voted_path": _path(run.schema, run.votes[galaxy]),
        "figure": embed_figure(figure, f"{kind.title}: posteriors and votes of {id_str}"),
    }


def _find_costly(schema: Schema, costs: Floats) -> dict[Question, float]:
    """Up to three questions with their share of a galaxy's cost, where that is large."""
    shares = costs / max(costs.sum(), np.finfo(float).tiny)
    most = np.argsort(-shares, kind="stable")[:3]
    return {schema.questions[index]: float(shares[index]) for index in most if shares[index] >= _COSTLY}


def _read_image(run: Run, id_str: str) -> tuple[str | None, str]:
    """Find and read a galaxy's image, the part of it that the model sees; or say why there is none."""
    size = _IMAGE_SIZE
    kept = run.config["model"]["crop_size"] / run.config["model"]["input_size"] if run.config else 1.0
    reason = "no file_loc"
    for path in _image_paths(run, id_str):
        try:
            pixels = images.read_image(path, size=round(size / kept), fits=_fits_config(run))
        except ImageError as error:
            reason = str(error)
            continue
        edge = (len(pixels) - size) // 2
        return embed_image(np.ascontiguousarray(pixels[edge : edge + size, edge : edge + size])), ""
    return None, reason


def _fits_config(run: Run) -> FitsConfig | None:
    """How the model had FITS files read; fluxes that it had without a stretch are shown with one."""
    settings = run.config["model"].get("fits") if run.config else None
    if settings is None:
        return None
    config = FitsConfig.from_dict(settings)
    return config if config.stretch else FitsConfig(config.layout)


def _image_paths(run: Run, id_str: str) -> list[Path]:
    """Where a galaxy's image may lie: where the catalog says, from its folder, or the predictions, from here.

    The predictions of shards name the shard, which is no image.
    """
    places = ((run.matched.voted, run.catalog.parent), (run.matched.predicted, Path()))
    named = [(root, str(table.loc[id_str].get("file_loc") or "")) for table, root in places]
    return [root / location for root, location in named if location and not location.endswith(".tfrecord")]
