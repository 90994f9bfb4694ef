"""What predictions of each galaxy score, question by question: errors of fractions, leading answers, CRPS of votes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoobot.schemas import Schema
from zoobot.stats.bootstrap import divide
from zoobot.stats.concentrations import (
    Floats,
    Groups,
    answer_betas,
    check_concentrations,
    check_votes,
    for_each_chunk,
    round_votes,
    sum_questions,
)
from zoobot.stats.predictive import iterate_count_probabilities

__all__ = ["compare_leading", "count_volunteers", "crps", "find_leading", "measure_fractions"]


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
        votes: (galaxies, answers), ≥ 0; `round_votes` makes them whole.
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
    counts = round_votes(check_votes(votes, (galaxies, answers)), groups)
    totals = sum_questions(counts, groups).astype(np.int64)
    result = np.full((galaxies, answers), np.nan)
    for index, (first, last) in enumerate(groups):
        question = slice(first, last + 1)
        # by rising N, so that few galaxies wait for others of their chunk that have more votes
        rows = np.argsort(totals[:, index], kind="stable")
        rows = rows[totals[rows, index] > 0]
        result[rows, question] = _question_crps(counts[rows, question], totals[rows, index], alpha[rows, :, question])
    return result


def measure_fractions(votes: Floats, fractions: Floats) -> dict[str, Floats]:
    """Errors of each galaxy's fractions for one question, and whether the leading answer is right.

    Args:
        votes: (galaxies, answers).
        fractions: (galaxies, answers), predicted.

    Returns:
        Each (galaxies,): ``mean_absolute_error`` and ``mean_square_error`` of the fractions against k/N, means over
        answers; ``correct``, 1 where `compare_leading` is on the diagonal, else 0. Without meaning where there are no
        votes.

    >>> measured = measure_fractions(np.array([[3.0, 1.0]]), np.array([[0.5, 0.5]]))
    >>> {name: float(values[0]) for name, values in measured.items()}
    {'mean_absolute_error': 0.25, 'mean_square_error': 0.0625, 'correct': 1.0}
    """
    error = fractions - divide(votes, np.broadcast_to(votes.sum(axis=1, keepdims=True), votes.shape), 0)
    return {
        "mean_absolute_error": np.abs(error).mean(axis=1),
        "mean_square_error": (error**2).mean(axis=1),
        "correct": np.einsum("gii->g", compare_leading(votes, fractions)),
    }


def compare_leading(votes: Floats, fractions: Floats) -> Floats:
    """Each galaxy's cell of the confusion matrix: the answer that leads in votes (row) and in fractions (column).

    Of answers that tie for the most votes it is the predicted one if that is among them, else the first: any of them is
    right. Of fractions that tie, the first is the prediction.

    Args:
        votes: (galaxies, answers) of one question.
        fractions: (galaxies, answers), predicted.

    Returns:
        (galaxies, answers, answers), of 0 and 1; without meaning where there are no votes.

    >>> compare_leading(np.array([[0.0, 2.0]]), np.array([[0.7, 0.3]]))
    array([[[0., 0.],
            [1., 0.]]])
    """
    rows, predicted = np.arange(len(votes)), fractions.argmax(axis=1)
    most = np.where(find_leading(votes)[rows, predicted], predicted, votes.argmax(axis=1))
    cells = np.zeros((*votes.shape, votes.shape[1]))
    cells[rows, most, predicted] = 1
    return cells


def find_leading(votes: Floats) -> NDArray[np.bool_]:
    """Whether each answer has the most votes for its question, alone or with others, of (galaxies, answers).

    >>> find_leading(np.array([[3.0, 1.0], [2.0, 2.0]]))
    array([[ True, False],
           [ True,  True]])
    """
    leading: NDArray[np.bool_] = votes == votes.max(axis=1, keepdims=True, initial=0)
    return leading


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
