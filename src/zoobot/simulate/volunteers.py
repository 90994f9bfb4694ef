"""The people who look: each with a skill, a bias and a diligence, answering down the decision tree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoobot.errors import SettingError
from zoobot.schemas import Schema

__all__ = ["Classifications", "Truth", "Volunteers", "draw_volunteers"]

Floats = NDArray[np.float64]

_SKILL_SPREAD = 0.3  # of log skill
_BIAS_SPREAD = 0.45  # of log-odds, from person to person
_CARELESS = (1.3, 12.0)  # Beta distribution of the share of answers given without looking
_MOST_ACTIVE = 2.5  # times as active as the mean, at most
_ACTIVITY_SPREAD = 1.0  # of log activity: a few people give most classifications


@dataclass(frozen=True)
class Truth:
    """What the votes of a galaxy converge on, when ever more of the same people look."""

    probability: Floats
    """(answers,): of each answer among those who are asked its question; among all, where nobody can be."""
    proportion_asked: Floats
    """(questions,): of people who are asked each question."""


@dataclass(frozen=True)
class Classifications:
    """What a few people said of one galaxy."""

    volunteer: NDArray[np.int64]
    """(classifications,): who, as a place in the crowd; nobody twice."""
    answers: NDArray[np.bool_]
    """(classifications, answers): what they chose; nothing at questions they were not asked."""

    @property
    def votes(self) -> NDArray[np.int64]:
        """(answers,): how many chose each."""
        return np.asarray(self.answers.sum(axis=0))


@dataclass(frozen=True)
class Volunteers:
    """A crowd. A volunteer v gives answer a to a question with

    ``p = (1 − c) softmax(skill · appeal(a) + bias(v, a)) + c / answers``, c being the share of careless answers.

    Raises:
        SettingError: shapes do not fit one another or the schema, or numbers are outside what they may be.
    """

    schema: Schema
    skill: Floats
    """(volunteers,) > 0: 1 is usual, more is sharper."""
    bias: Floats
    """(volunteers, answers): log-odds of each answer beyond what the galaxy suggests."""
    carelessness: Floats
    """(volunteers,) from 0 to 1: one minus their diligence."""
    activity: Floats
    """(volunteers,): the share of all classifications that is theirs, of sum 1."""

    def __post_init__(self) -> None:
        """Check it."""
        number, answers = len(self.skill), len(self.schema.label_cols)
        shapes = {"skill": (number,), "bias": (number, answers), "carelessness": (number,), "activity": (number,)}
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape or not np.isfinite(values).all():
                raise SettingError(f"{name}: got shape {values.shape}, expected finite numbers of shape {shape}.")
        if not number or (self.skill <= 0).any() or (self.activity < 0).any() or abs(self.activity.sum() - 1) > 1e-9:
            raise SettingError("skill must be above 0, and activity at least 0 with sum 1, of at least one volunteer.")
        if (self.carelessness < 0).any() or (self.carelessness > 1).any():
            raise SettingError("carelessness must be between 0 and 1.")

    def __len__(self) -> int:
        """How many people."""
        return len(self.skill)

    def answer_probabilities(self, appeal: Floats) -> Floats:
        """Compute what each volunteer would say, if asked: (volunteers, answers), of sum 1 for each question.

        Args:
            appeal: (answers,), see `zoobot.simulate.impressions.appeals`.
        """
        odds = self.skill * appeal[:, None] + self.bias.T  # (answers, volunteers), where sums over answers are fast
        for first, last in self.schema.question_index_groups:
            chosen = odds[first : last + 1]
            np.exp(chosen - chosen.max(axis=0), out=chosen)
            chosen *= (1 - self.carelessness) / chosen.sum(axis=0)
            chosen += self.carelessness / len(chosen)
        return odds.T

    def truth(self, probabilities: Floats) -> Truth:
        """Average over the crowd by activity: exact, with those asked a question weighing as often as they are asked.

        Args:
            probabilities: (volunteers, answers) as from `answer_probabilities`.
        """
        asked = self.schema.proportion_asked(np.clip(probabilities, 0, 1)) * self.activity[:, None]
        sizes = [last + 1 - first for first, last in self.schema.question_index_groups]
        proportion = np.minimum(asked.sum(axis=0), 1)
        given = (np.repeat(asked, sizes, axis=1) * probabilities).sum(axis=0)
        everyone = self.activity @ probabilities  # where nobody can be asked
        asked_at_all = np.repeat(proportion, sizes) > 0
        shares = np.divide(given, np.repeat(proportion, sizes), out=everyone, where=asked_at_all)
        return Truth(shares, proportion)

    def classify(self, probabilities: Floats, number: int, generator: np.random.Generator) -> Classifications:
        """Let so many different people answer, each as often on average as their activity says.

        Systematic sampling (Madow 1949) of a shuffled crowd: exactly ``number · activity`` is the chance of each.

        Raises:
            SettingError: the crowd is too small, or somebody too active, for so many different people.
        """
        chances = number * self.activity
        if number < 0 or chances.max() > 1 + 1e-9:
            raise SettingError(
                f"number: got {number}, expected 0 to {int(1 / self.activity.max() + 1e-9)} for these "
                f"{len(self)} volunteers, none of whom may look at a galaxy twice."
            )
        order = generator.permutation(len(self))
        edges = np.cumsum(chances[order])
        picks = np.arange(number) + generator.random()
        places = np.minimum(np.searchsorted(edges, picks, side="right"), len(self) - 1)
        people = order[places]
        chosen = np.zeros((number, probabilities.shape[1]), bool)
        for first, last in self.schema.question_index_groups:
            steps = np.cumsum(probabilities[people, first : last + 1], axis=1)
            draws = generator.random((number, 1)) * steps[:, -1:]
            chosen[np.arange(number), first + np.minimum((draws >= steps).sum(axis=1), last - first)] = True
        return Classifications(people, self.schema.cumulative_fractions(chosen) > 0.5)  # only what was asked


def draw_volunteers(schema: Schema, number: int, votes: int, generator: np.random.Generator) -> Volunteers:
    """Draw a crowd in which nobody is so active as to be wanted twice at one galaxy.

    Log-normal skills, normal biases, shares of careless answers from a Beta distribution of mean 0.1, log-normal
    activities: all of them choices.

    Args:
        schema: the decision tree they answer.
        number: of volunteers.
        votes: how many of them look at each galaxy.
        generator: where chance comes from.

    Raises:
        SettingError: there are fewer volunteers than votes.
    """
    if not 1 <= votes <= number:
        raise SettingError(f"votes: got {votes}, expected 1 to {number}, the number of volunteers.")
    activity = np.exp(generator.normal(0, _ACTIVITY_SPREAD, number))
    # nearly always the first of the two, so that the crowd does not depend on the votes
    most = _MOST_ACTIVE / number if votes * _MOST_ACTIVE <= number else 1 / votes
    activity = _limit(activity / activity.sum(), most)
    return Volunteers(
        schema,
        skill=np.exp(generator.normal(0, _SKILL_SPREAD, number)),
        bias=generator.normal(0, _BIAS_SPREAD, (number, len(schema.label_cols))),
        carelessness=generator.beta(*_CARELESS, number),
        activity=activity,
    )


def _limit(shares: Floats, most: float) -> Floats:
    """Cut shares down to ``most`` and give what is over to the rest in proportion."""
    limited = np.zeros(len(shares), bool)
    result = shares
    while (result > most).any():
        limited |= result > most
        rest = 1 - most * limited.sum()
        free = shares[~limited].sum()
        result = np.where(limited, most, shares * (rest / free if free else 0))
    return np.asarray(result / result.sum())
