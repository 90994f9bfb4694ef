"""One galaxy's posterior and votes, its path through the decision tree, and which galaxies are worth showing."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoobot.schemas import Question, Schema
from zoobot.stats.concentrations import sum_questions
from zoobot.stats.galaxy_scores import count_volunteers

__all__ = ["GalaxyPosterior", "Titles", "mean_width", "pick", "share_asked", "walk"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GalaxyPosterior:
    """What is predicted of one galaxy, and what volunteers said; values in the order of the label columns.

    Attributes:
        fractions: (answers,) expected vote fractions.
        lower: (answers,) lower edge of each one's credible interval.
        upper: (answers,) upper edge.
        concentrations: (samples, answers), for the densities; None draws intervals alone.
        votes: (answers,) counts; None if nobody looked.
    """

    fractions: Floats
    lower: Floats
    upper: Floats
    concentrations: Floats | None = None
    votes: Floats | None = None


class Titles:
    """Names of questions and answers as one reads them: without hyphens, and without a survey's suffix.

    >>> from zoobot import schemas
    >>> schema = schemas.load("gz2")
    >>> Titles(schema).question(schema.questions[0])
    'Smooth or featured'
    """

    def __init__(self, schema: Schema) -> None:
        last = {name.rpartition("-")[2] for name in schema.question_names}
        self._suffix = f"-{last.pop()}" if len(last) == 1 and len(schema.questions) > 1 else ""

    def question(self, question: Question) -> str:
        """Give the question's name in words."""
        words = question.name.removesuffix(self._suffix).replace("-", " ").replace("_", " ")
        return words[:1].upper() + words[1:]

    def answers(self, question: Question) -> list[str]:
        """Give the answers in words."""
        return [answer.text.replace("-", " ").replace("_", " ") for answer in question.answers]


def walk(schema: Schema, fractions: Floats) -> list[tuple[Question, int]]:
    """Follow the leading answers through the tree.

    Args:
        schema: the decision tree.
        fractions: (answers,) of one galaxy; votes will do.

    Returns:
        The questions that are reached, in the order of the schema, each with the index of its leading answer;
        a question whose fractions are all zero is left out, with all that follows it.

    >>> from zoobot import schemas
    >>> [(question.name, lead) for question, lead in walk(schemas.load("gz_rings"), np.array([3.0, 8.0]))]
    [('ring', 1)]
    """
    groups = schema.question_index_groups
    values = {q.name: fractions[first : last + 1] for q, (first, last) in zip(schema.questions, groups, strict=True)}
    leading = {
        question.answers[int(values[question.name].argmax())].label_col: question for question in schema.questions
    }

    def is_reached(question: Question) -> bool:
        if not values[question.name].any():
            return False  # nobody voted
        parents = [leading[answer] for answer in question.asked_after if answer in leading]
        return not question.asked_after or any(map(is_reached, parents))

    return [(question, int(values[question.name].argmax())) for question in schema.questions if is_reached(question)]


def share_asked(votes: Floats, schema: Schema) -> Floats:
    """Share of a galaxy's volunteers who were asked each question, going by the votes: (galaxies, questions).

    0 for a galaxy without votes.
    """
    totals = sum_questions(votes, schema.question_index_groups)
    volunteers = count_volunteers(votes, schema)[:, None]
    shares: Floats = np.divide(totals, volunteers, out=np.zeros_like(totals), where=volunteers > 0)
    return shares


def mean_width(lower: Floats, upper: Floats, asked: NDArray[np.floating], schema: Schema) -> Floats:
    """Uncertainty of each galaxy: the widest interval of each question, averaged by how likely it is asked.

    Args:
        lower: (galaxies, answers), lower edges of the fractions' intervals.
        upper: (galaxies, answers), upper edges.
        asked: (galaxies, questions), expected share of volunteers who are asked.
        schema: the decision tree.
    """
    widest = np.maximum.reduceat(upper - lower, [first for first, _ in schema.question_index_groups], axis=1)
    width: Floats = (widest * asked).sum(axis=1) / asked.sum(axis=1)
    return width


def pick(order: Iterable[int], kind: Callable[[int], Hashable], count: int) -> list[int]:
    """Take the first of each kind in ``order``, then, if those are too few, the first of the rest.

    >>> pick([3, 1, 0, 2], lambda galaxy: "disk" if galaxy in (0, 3) else "round", 3)
    [3, 1, 0]
    """
    seen: set[Hashable] = set()
    firsts: list[int] = []
    others: list[int] = []
    for galaxy in order:
        (others if kind(galaxy) in seen else firsts).append(galaxy)
        seen.add(kind(galaxy))
        if len(firsts) == count:
            break
    return (firsts + others)[:count]
