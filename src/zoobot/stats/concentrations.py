"""What the functions of concentrations share: checks, sums over questions, the answers' Betas, work in chunks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from zoobot.errors import SettingError
from zoobot.processes import count_cores

__all__ = [
    "CHUNK_VALUES",
    "Floats",
    "Groups",
    "answer_betas",
    "check_concentrations",
    "check_credibility",
    "check_question_index_groups",
    "check_totals",
    "check_votes",
    "draw_fractions",
    "for_each_chunk",
    "log_multichoose",
    "round_votes",
    "spread_over_answers",
    "sum_questions",
]

Groups: TypeAlias = Sequence[tuple[int, int]]
Floats: TypeAlias = NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

CHUNK_VALUES = 100_000  # concentrations worked on at once by one thread: some 10 MB of temporaries
_MOST_VOTES = 1000  # the time that predictive distributions take goes with it


def check_question_index_groups(question_index_groups: Groups) -> tuple[tuple[int, int], ...]:
    """Check that the groups cover the answers 0, 1, 2, ... in order, and return them as plain integers.

    Args:
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Raises:
        SettingError: a group leaves a gap, overlaps, is empty or is no pair.

    >>> check_question_index_groups([(0, 2), (3, 4)])
    ((0, 2), (3, 4))
    """
    expected_first = 0
    groups: list[tuple[int, int]] = []
    for group in question_index_groups:
        if len(group) != 2 or group[0] != expected_first or group[1] < group[0]:
            raise SettingError(
                f"question_index_groups: got {group!r} as group {len(groups)}, expected "
                f"({expected_first}, last index of that question); groups are inclusive and leave no gap."
            )
        groups.append((int(group[0]), int(group[1])))
        expected_first = groups[-1][1] + 1
    if not groups:
        raise SettingError("question_index_groups: got no groups, expected at least one question.")
    return tuple(groups)


def check_concentrations(
    concentrations: ArrayLike, question_index_groups: Groups
) -> tuple[Floats, tuple[tuple[int, int], ...]]:
    """Check concentrations against the groups; return them as (galaxies, samples, answers) float64, and the groups.

    Raises:
        SettingError: shapes do not fit, or a concentration is not above 0 and at most 1e9 (beyond, logarithms of
            probabilities would lose more than five digits).

    >>> check_concentrations([[1.0, 3.0]], [(0, 1)])[0].shape
    (1, 1, 2)
    """
    groups = check_question_index_groups(question_index_groups)
    alpha = np.asarray(concentrations, dtype=np.float64)
    answers = groups[-1][1] + 1
    if alpha.ndim not in (2, 3) or alpha.shape[-1] != answers or 0 in alpha.shape[1:]:
        raise SettingError(
            f"concentrations: got shape {alpha.shape}, expected (galaxies, samples, {answers}) or "
            f"(galaxies, {answers}) to fit the question_index_groups."
        )
    if not (alpha.min(initial=1) > 0 and alpha.max(initial=1) <= 1e9):  # NaN is neither
        raise SettingError("concentrations: got a value that is not above 0 and at most 1e9, expected such numbers.")
    return (alpha[:, None, :] if alpha.ndim == 2 else alpha), groups


def draw_fractions(alpha: Floats, generator: np.random.Generator) -> Floats:
    """Draw from Dirichlet distributions of one question, (..., answers): of each row, one draw.

    Gammas in logarithms, ``ln g(α) = ln g(α + 1) + ln(u) / α`` (Marsaglia and Tsang 2000, ACM Trans. Math. Softw. 26,
    363), since those of tiny concentrations are too small for float64, all of them at once.

    >>> draw_fractions(np.full((3, 2), 1e-4), np.random.default_rng(0)).sum(axis=1)
    array([1., 1., 1.])
    """
    logarithms = np.log(generator.standard_gamma(alpha + 1)) + np.log(1 - generator.random(alpha.shape)) / alpha
    shares = np.moveaxis(logarithms, -1, 0).copy()  # answers first: sums over few neighbours are slow
    shares -= shares.max(axis=0)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=0)
    return np.moveaxis(shares, 0, -1)


def check_votes(votes: ArrayLike, shape: tuple[int, int], *, whole: bool = False) -> Floats:
    """Check votes of shape (galaxies, answers), and return them as float64.

    Raises:
        SettingError: another shape, a vote that is not finite and ≥ 0, or not whole where it must be.
    """
    counts = np.asarray(votes, dtype=np.float64)
    if counts.shape != shape:
        raise SettingError(f"votes: got shape {counts.shape}, expected {shape} as concentrations.")
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise SettingError("votes: got a negative, NaN or infinite value, expected numbers of at least 0.")
    if whole and (counts % 1).any():
        raise SettingError("votes: got a number that is not whole, and this is about single votes; round them first.")
    return counts


def round_votes(votes: ArrayLike, question_index_groups: Groups) -> Floats:
    """Whole votes that add up to each question's rounded total, by the method of largest remainders (Hamilton's).

    Each answer gets the whole part of its votes, and those with the largest remainders one more until the total is
    reached; of equal remainders the first. Every answer stays within one vote of what it was. Of more than 1,000 votes
    for a question, 1,000 are drawn without replacement: to predict these is the same task, and takes finite time.

    Args:
        votes: (galaxies, answers), ≥ 0, less than 1e9 for each question.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64, whole; votes that are whole already, and at most 1,000, are as given.

    Raises:
        SettingError: the shape does not fit, or a vote is not ≥ 0, or there are too many.

    >>> round_votes([[0.4, 0.4, 2.2], [1.0, 2.0, 0.0]], [(0, 2)])  # rounded one by one, a vote would be lost
    array([[1., 0., 2.],
           [1., 2., 0.]])
    """
    groups = check_question_index_groups(question_index_groups)
    given = np.asarray(votes, dtype=np.float64)
    given = check_votes(given, (len(given) if given.ndim else 0, groups[-1][1] + 1))
    whole = np.floor(given)
    totals = np.rint(sum_questions(given, groups))
    if totals.max(initial=0) >= 1e9:
        raise SettingError(f"votes: got {totals.max():g} for a question, expected less than 1e9.")
    missing = totals - sum_questions(whole, groups)
    for number, (first, last) in enumerate(groups):
        question = slice(first, last + 1)
        order = (whole[:, question] - given[:, question]).argsort(axis=1, kind="stable")
        whole[:, question] += order.argsort(axis=1) < missing[:, number, None]
        for galaxy in np.flatnonzero(totals[:, number] > _MOST_VOTES):
            generator = np.random.default_rng([int(galaxy), number])
            whole[galaxy, question] = generator.multivariate_hypergeometric(
                whole[galaxy, question].astype(np.int64), _MOST_VOTES, method="marginals"
            )
    return whole


def check_totals(totals: ArrayLike, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Check numbers of volunteers that broadcast to (galaxies, questions), and return them so, as integers.

    Raises:
        SettingError: a shape that does not fit, or a number that is not whole and ≥ 0.

    >>> check_totals(40, (2, 1))
    array([[40],
           [40]])
    """
    numbers = np.asarray(totals, dtype=np.float64)
    try:
        numbers = np.broadcast_to(numbers, shape)
    except ValueError:
        raise SettingError(
            f"totals: got shape {numbers.shape}, expected one that broadcasts to {shape} (galaxies, questions)."
        ) from None
    if not (np.isfinite(numbers) & (numbers >= 0) & (numbers % 1 == 0)).all():
        raise SettingError("totals: got a number that is not whole, or below 0; expected how many volunteers answer.")
    return numbers.astype(np.int64)


def check_credibility(credibility: float) -> None:
    """Check that it is a probability that an interval can hold.

    Raises:
        SettingError: it is not between 0 and 1.
    """
    if not 0 < credibility < 1:
        raise SettingError(f"credibility: got {credibility!r}, expected a number between 0 and 1, such as 0.9.")


def sum_questions(values: Floats, groups: Groups) -> Floats:
    """Sum over the answers of each question, on the last axis: (..., answers) to (..., questions)."""
    totals: Floats = np.add.reduceat(values, [first for first, _ in groups], axis=-1)
    return totals


def spread_over_answers(values: NDArray[Number], groups: Groups) -> NDArray[Number]:
    """Give each answer the value of its question, on the last axis: (..., questions) to (..., answers)."""
    return np.repeat(values, [last - first + 1 for first, last in groups], axis=-1)


def log_multichoose(alpha: Floats, votes: NDArray[Any]) -> Floats:
    """Logarithm of the multiset coefficient, ``lnΓ(α + k) − lnΓ(α) − lnΓ(k + 1)``; exactly 0 for k = 0.

    All that the Dirichlet-multinomial is made of: the log probability of a question's votes is its sum over the
    answers, less that of Σα and Σk. Arguments broadcast.

    >>> float(np.exp(log_multichoose(np.array(3.0), np.array(2))).round(12))  # pairs of three things, with repetition
    6.0
    """
    return np.asarray(special.gammaln(alpha + votes) - special.gammaln(alpha) - special.gammaln(votes + 1))


def answer_betas(alpha: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """Parameters α and A − α of each answer's ``Beta(α, A − α)``, its marginal in one Dirichlet.

    A − α is added up from the other answers, as a difference would lose a small one beside a large one.

    Args:
        alpha: (galaxies, samples, answers).
        groups: as `check_question_index_groups` gives them.

    Returns:
        Both as (samples, galaxies · answers).

    Raises:
        SettingError: a question has one answer only: there is no distribution.
    """
    if any(first == last for first, last in groups):
        raise SettingError("question_index_groups: a question with one answer is never in doubt; expected two or more.")
    others = np.zeros_like(alpha)
    for first, last in groups:
        for step in (1, -1):  # those before, then those after
            question = alpha[..., first : last + 1][..., ::step]
            others[..., first : last + 1][..., ::step][..., 1:] += question[..., :-1].cumsum(axis=-1)
    samples = alpha.shape[1]
    return alpha.swapaxes(0, 1).reshape(samples, -1), others.swapaxes(0, 1).reshape(samples, -1)


def for_each_chunk(work: Callable[[slice], None], galaxies: int, values_each: int) -> None:
    """Call ``work`` with slices of the galaxies, in up to eight threads; scipy and numpy let go of the GIL.

    Args:
        work: does its part of the galaxies.
        galaxies: how many there are.
        values_each: how many values at once a galaxy stands for; memory is bounded by it.
    """
    size = max(1, CHUNK_VALUES // max(1, values_each))
    chunks = [slice(start, min(start + size, galaxies)) for start in range(0, galaxies, size)]
    if len(chunks) <= 1:
        for chunk in chunks:
            work(chunk)
        return
    with ThreadPoolExecutor(min(8, count_cores())) as pool:
        for _ in pool.map(work, chunks):
            pass
