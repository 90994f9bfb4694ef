"""How unsure the posterior is, and of what kind: which answer leads, entropies, what more votes would tell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from zoobot.stats.concentrations import (
    Floats,
    Groups,
    answer_betas,
    check_concentrations,
    check_totals,
    for_each_chunk,
    spread_over_answers,
    sum_questions,
)
from zoobot.stats.predictive import iterate_count_probabilities

__all__ = [
    "NextVoteUncertainty",
    "count_information",
    "dirichlet_entropies",
    "next_vote_uncertainty",
    "probability_leads",
]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_NEGLIGIBLE = 1e-12  # probability
_FAR = 7  # standard deviations, beyond which less than that lies
_TINY = 1e-9  # below it, each of the gamma distributions is a power of x to 1e-9


def probability_leads(concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Posterior probability that each answer's vote fraction is the highest of its question.

    Of two answers it is the probability of more than one half, ``mean over samples of I_½(A − α, α)``. Of more,
    fractions are independent Gammas (density g, CDF G) divided by their sum, so that ``P(i leads) = ∫ g_i(x) Π_{j≠i}
    G_j(x) dx``, which is done as ``∫ H r_i dx`` with H = ΠG and r = g / G, by Gauss's 40-point rule in log x over all
    but 1e-12 of H. Error: below 1e-7 for concentrations from 0.001 to a million.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64; they sum to one for each question.

    Raises:
        SettingError: shapes do not fit, or a concentration is not finite and positive.

    >>> probability_leads([[1.0, 1.0, 2.0, 2.0, 2.0]], [(0, 1), (2, 4)]).round(6)
    array([[0.5     , 0.5     , 0.333333, 0.333333, 0.333333]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    result = np.ones((galaxies, answers))

    def work(chunk: slice) -> None:
        for first, last in groups:
            question = alpha[chunk, :, first : last + 1]
            if last == first + 1:
                above = special.betainc(question[..., ::-1], question, 0.5)
                result[chunk, first : last + 1] = above.mean(axis=1)
            elif last > first:
                result[chunk, first : last + 1] = _highest_gamma(question).mean(axis=1)

    for_each_chunk(work, galaxies, samples * answers * len(_NODES) // 4)
    return result


def _highest_gamma(shapes: Floats) -> Floats:
    """Probability that each of independent Gammas, along the last axis, is the highest."""
    log_norm = special.gammaln(shapes)
    # Wilson and Hilferty's quantiles: the cube root of a Gamma is close to normal
    lowest, highest = (
        (shapes * (1 - 1 / (9 * shapes) + z / (3 * np.sqrt(shapes))).clip(0) ** 3).max(axis=-1) for z in (-_FAR, _FAR)
    )
    # H is at most x^Σα / ΠΓ(α + 1)
    bound = (np.log(_NEGLIGIBLE) + special.gammaln(shapes + 1).sum(axis=-1)) / shapes.sum(axis=-1)
    low = np.maximum(np.log(np.maximum(lowest, _TINY)), bound)
    high = np.log(np.maximum(highest, -np.log(_NEGLIGIBLE)))
    half = (high - low) / 2

    def evaluate(log_x: Floats) -> tuple[Floats, Floats]:
        """H and x r."""
        x = np.exp(log_x)[..., None]
        below = special.gammainc(shapes, x)
        return below.prod(axis=-1), np.exp(shapes * log_x[..., None] - x - log_norm) / below

    head, rates = evaluate(low)  # below, the r are as α to each other
    total = rates * (head / rates.sum(axis=-1))[..., None]
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        chance, rates = evaluate(low + half * (1 + node))
        total += rates * (weight * half * chance)[..., None]
    result: Floats = total / total.sum(axis=-1, keepdims=True)
    return result


def dirichlet_entropies(concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """Differential entropy of the fractions of each question, for each sample's Dirichlet, in nats.

    ``ln B(α) + (A − m) ψ(A) − Σ (α − 1) ψ(α)`` for m answers, with ln B(α) = Σ lnΓ(α) − lnΓ(A). The entropy of a
    mixture has no closed form; it lies between the mean of these and that plus the logarithm of the number of samples.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, samples, questions) float64; 0 is that of two answers when nothing is known, the rest mostly below.

    Raises:
        SettingError: shapes do not fit, or a concentration is not finite and positive.

    >>> dirichlet_entropies([[1.0, 1.0, 20.0, 20.0]], [(0, 1), (2, 3)]).round(3)
    array([[[ 0.   , -1.131]]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    total, sizes = sum_questions(alpha, groups), np.array([last - first + 1 for first, last in groups])
    each = special.gammaln(alpha) - (alpha - 1) * special.psi(alpha)
    entropies: Floats = sum_questions(each, groups) - special.gammaln(total) + (total - sizes) * special.psi(total)
    return entropies


@dataclass(frozen=True)
class NextVoteUncertainty:
    """Where the doubt about the next volunteer's answer to each question comes from; in nats, (galaxies, questions).

    ``entropy = between_samples + within_samples + volunteers``.
    """

    entropy: Floats
    """Entropy of the answer, of which the expected fractions are the probabilities."""
    between_samples: Floats
    """What the answer would tell about which sample is right: the samples' disagreement (BALD)."""
    within_samples: Floats
    """What it would tell about the fractions, were the sample known: the width of its Dirichlet."""
    volunteers: Floats
    """What stays in doubt with the fractions known: volunteers who disagree, which no more votes would change."""


def next_vote_uncertainty(concentrations: ArrayLike, question_index_groups: Groups) -> NextVoteUncertainty:
    """Entropy of the next vote for each question, and its parts, in closed form.

    With m = α / A in each sample, h(p) = −Σ p ln p, and E the mean over samples:

    - ``entropy``: ``h(E m)``;
    - ``between_samples``: ``h(E m) − E h(m)``, the mutual information between vote and sample (BALD: Houlsby et al.
      2011, arXiv:1112.5745, where a sample is a set of weights);
    - ``within_samples``: ``E [h(m) − h̄]``, the mutual information between vote and fractions given the sample, where
      ``h̄ = ψ(A + 1) − Σ m ψ(α + 1)`` is the expected entropy of the fractions of one Dirichlet;
    - ``volunteers``: ``E h̄``.

    So the first two together are all that the vote would tell about the fractions and the sample.

    Args:
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Raises:
        SettingError: shapes do not fit, or a concentration is not finite and positive.

    >>> sure_but_opposed = [[[90.0, 10.0], [10.0, 90.0]]]
    >>> parts = next_vote_uncertainty(sure_but_opposed, [(0, 1)])
    >>> parts.entropy.round(3), parts.between_samples.round(3), parts.within_samples.round(3), parts.volunteers.round(3)
    (array([[0.693]]), array([[0.368]]), array([[0.005]]), array([[0.32]]))
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    total = sum_questions(alpha, groups)
    mean = alpha / spread_over_answers(total, groups)
    entropy = sum_questions(special.entr(mean.mean(axis=1)), groups)
    of_samples = sum_questions(special.entr(mean), groups).mean(axis=1)
    of_fractions = special.psi(total + 1) - sum_questions(mean * special.psi(alpha + 1), groups)
    volunteers = of_fractions.mean(axis=1)
    return NextVoteUncertainty(
        entropy,
        between_samples=np.maximum(entropy - of_samples, 0),  # rounding may carry it below
        within_samples=np.maximum(of_samples - volunteers, 0),
        volunteers=volunteers,
    )


def count_information(totals: ArrayLike, concentrations: ArrayLike, question_index_groups: Groups) -> Floats:
    """What the number of votes for each answer, out of N, would tell about which sample is right, in nats.

    The mutual information ``H(mean of p_s) − mean of H(p_s)`` between sample s and count k, with the beta-binomial
    probabilities p_s(k), summed over all k: BALD with N volunteers (Walmsley et al. 2020, MNRAS 491, 1554).
    With N = 1 and two answers it is ``between_samples`` of `next_vote_uncertainty`.

    Args:
        totals: numbers of volunteers N, whole and ≥ 0, that broadcast to (galaxies, questions).
        concentrations: (galaxies, samples, answers), or (galaxies, answers) for one sample; finite and > 0.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, answers) float64, from 0 to the logarithm of the number of samples.

    Raises:
        SettingError: shapes do not fit, a concentration is not finite and > 0, a total not whole and ≥ 0, or a
            question has one answer only.

    >>> count_information([[1], [40]], [[[90.0, 10.0], [10.0, 90.0]]] * 2, [(0, 1)]).round(3)
    array([[0.368, 0.368],
           [0.693, 0.693]])
    """
    alpha, groups = check_concentrations(concentrations, question_index_groups)
    galaxies, samples, answers = alpha.shape
    numbers = check_totals(totals, (galaxies, len(groups)))
    result = np.empty((galaxies, answers))

    def work(chunk: slice) -> None:
        votes = spread_over_answers(numbers[chunk], groups).ravel()
        information = np.zeros(votes.size)
        for each in iterate_count_probabilities(*answer_betas(alpha[chunk], groups), votes):
            information += special.entr(each.mean(axis=0)) - special.entr(each).mean(axis=0)
        result[chunk] = np.maximum(information, 0).reshape(-1, answers)

    for_each_chunk(work, galaxies, samples * answers)
    return result
