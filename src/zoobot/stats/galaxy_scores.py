"""What predictions of each galaxy score, question by question: errors of fractions, leading answers, CRPS of votes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoobot.schemas import Schema
from zoobot.stats.concentrations import (
    Floats,
    Groups,
    answer_betas,
    check_concentrations,
    check_votes,
    for_each_chunk,
    sum_questions,
)
from zoobot.stats.predictive import iterate_count_probabilities

__all__ = ["count_volunteers", "crps", "measure_fractions"]


def count_volunteers(votes: ArrayLike, schema: Schema) -> Floats:
    """How many volunteers looked at each galaxy: the most votes for any question that everyone is asked.

    Args:
        votes: (galaxies, answers), ≥ 0.
        schema: the decision tree.

    Returns:
        (galaxies,) float64.

    >>> from zoobot import schemas
    >>> count_volunteers([[3, 1], [0, 0]], schemas.load("gz_rings"))
    array([4., 0.])
    """
    totals = sum_questions(np.asarray(votes, dtype=np.float64), schema.question_index_groups)
    of_everyone = [index for index, question in enumerate(schema.questions) if not question.asked_after]
    volunteers: Floats = totals[:, of_everyone].max(axis=1)
    return volunteers


def crps(votes: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Continuous ranked probability score of each answer's measured vote fraction k/N.

    ``∫ (F(x) − [x ≥ k/N])² dx = Σ over j < N of (F(j) − [j ≥ k])² / N``, where F is the CDF of the posterior
    predictive, the mixture of beta-binomials (Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102, 359, equation 20,
    where the sign is the opposite). 0 is a sure and right prediction; of a prediction without a spread it is the
    absolute error; unlike the loss it forgives a little probability where it matters little.

    Args:
        votes: (galaxies, answers), ≥ 0; rounded if they are not whole.
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64, 0 to 1; NaN where a question has no votes.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, a vote not finite and ≥ 0, or a
            question has one answer only.

    >>> crps([[1, 0], [0, 0]], [[1.0, 1.0], [1.0, 1.0]], [(0, 1)])  # 0 or 1 of 1, equally probable: (1/2)²
    array([[0.25, 0.25],
           [ nan,  nan]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, _, answers = alpha.shape
    counts = check_votes(votes, (galaxies, answers))
    totals = np.rint(sum_questions(counts, groups)).astype(np.int64)
    counts = np.rint(counts)
    result = np.full((galaxies, answers), np.nan)
    for index, (first, last) in enumerate(groups):
        question = slice(first, last + 1)
        # by rising N, so that few galaxies wait for others of their chunk that have more votes
        rows = np.argsort(totals[:, index], kind="stable")
        rows = rows[totals[rows, index] > 0]
        result[rows, question] = _question_crps(counts[rows, question], totals[rows, index], alpha[rows, :, question])
    return result


def measure_fractions(votes: Floats, fractions: Floats, groups: Groups) -> dict[str, Floats]:
    """Errors of each galaxy's fractions and leading answers for each question.

    Args:
        votes: (galaxies, answers).
        fractions: (galaxies, answers), predicted.
        groups: first and last index (inclusive) of the answers of each question.

    Returns:
        Each (galaxies, questions): ``mean_absolute_error`` and ``mean_square_error`` of the fractions against k/N,
        means over answers; ``correct``, 1 where the highest fraction's answer has the most votes, else 0; and
        ``leading``, the highest k/N. Without meaning where there are no votes.

    >>> measured = measure_fractions(np.array([[3.0, 1.0]]), np.array([[0.5, 0.5]]), [(0, 1)])
    >>> {name: float(values[0, 0]) for name, values in measured.items()}
    {'mean_absolute_error': 0.25, 'mean_square_error': 0.0625, 'correct': 1.0, 'leading': 0.75}
    """
    columns: dict[str, list[Floats]] = {
        "mean_absolute_error": [],
        "mean_square_error": [],
        "correct": [],
        "leading": [],
    }
    for first, last in groups:
        counts, predicted = votes[:, first : last + 1], fractions[:, first : last + 1]
        totals = np.maximum(counts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        error, most = predicted - counts / totals, counts.max(axis=1)
        chosen = np.take_along_axis(counts, predicted.argmax(axis=1)[:, None], axis=1)[:, 0]
        columns["mean_absolute_error"].append(np.abs(error).mean(axis=1))
        columns["mean_square_error"].append((error**2).mean(axis=1))
        columns["correct"].append((chosen == most).astype(np.float64))
        columns["leading"].append(most / totals[:, 0])
    return {name: np.stack(values, axis=1) for name, values in columns.items()}


def _question_crps(counts: Floats, totals: NDArray[np.int64], alpha: Floats) -> Floats:
    """CRPS for one question, (galaxies, answers), of votes (galaxies, answers) out of totals (galaxies,) above 0."""
    galaxies, samples, answers = alpha.shape
    result = np.empty((galaxies, answers))

    def work(chunk: slice) -> None:
        numbers, observed = np.repeat(totals[chunk], answers), counts[chunk].ravel()
        betas = answer_betas(alpha[chunk], [(0, answers - 1)])
        below, score = np.zeros(len(numbers)), np.zeros(len(numbers))
        for count, each in enumerate(iterate_count_probabilities(*betas, numbers)):
            below += each.mean(axis=0)
            score += (below - (count >= observed)) ** 2
        result[chunk] = (score / numbers).reshape(-1, answers)

    for_each_chunk(work, galaxies, samples * answers)
    return result
