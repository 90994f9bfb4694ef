"""Intervals of fractions under mixtures of Dirichlets, beside other ways to make them, and what the rest costs.

Run ``python benchmarks/posteriors.py``. The tree is that of GZ DECaLS, 34 answers to ten questions, with five samples
that differ as those of dropout do. To average the edges of the samples' intervals is common and fast, but no interval
of the posterior: samples that disagree do not widen it. How much probability such intervals hold is shown.
"""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import timing
from numpy.typing import NDArray
from scipy import special

from zoobot import schemas
from zoobot.stats import dirichlet, predictive, trees, uncertainty
from zoobot.stats.concentrations import answer_betas, check_question_index_groups

SCHEMA = schemas.load("gz_decals")
GROUPS = check_question_index_groups(SCHEMA.question_index_groups)
SAMPLES, TAILS, DRAWS = 5, (0.05, 0.95), 1000
Floats = NDArray[np.float64]


def make_up(galaxies: int) -> Floats:
    """Concentrations as of a head: 1 to 101, alike between the samples of a galaxy."""
    generator = np.random.default_rng(0)
    shape = (galaxies, SAMPLES, len(SCHEMA.label_cols))
    logits = generator.normal(-2, 1.5, (galaxies, 1, shape[2])) + generator.normal(0, 0.3, shape)
    return 1 + 100 * special.expit(logits)


def average_edges(alpha: Floats) -> list[Floats]:
    first, second = answer_betas(alpha, GROUPS)
    return [special.betaincinv(first, second, tail).mean(axis=0) for tail in TAILS]


def bisect(alpha: Floats) -> list[Floats]:
    first, second = answer_betas(alpha, GROUPS)
    edges = []
    for tail in TAILS:
        low, high = np.zeros(first.shape[1]), np.ones(first.shape[1])
        for _ in range(27):  # to 1e-8
            middle = (low + high) / 2
            below = special.betainc(first, second, middle).mean(axis=0) < tail
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        edges.append((low + high) / 2)
    return edges


def draw(alpha: Floats) -> list[Floats]:
    generator = np.random.default_rng(0)
    edges = []
    for galaxy in alpha:
        gammas = generator.standard_gamma(np.repeat(galaxy, DRAWS // SAMPLES, axis=0))
        totals = np.add.reduceat(gammas, [first for first, _ in GROUPS], axis=1)
        fractions = gammas / np.repeat(totals, [last - first + 1 for first, last in GROUPS], axis=1)
        edges.append(np.quantile(fractions, TAILS, axis=0))
    return [np.stack([both[edge] for both in edges]).ravel() for edge in (0, 1)]


def zoobots(alpha: Floats) -> tuple[Floats, Floats]:
    return dirichlet.fraction_intervals(alpha, GROUPS)


def run(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def print_memory_and_time(galaxies: int) -> None:
    """Of many galaxies, once; the memory is the most that this process held, with all that it imported."""
    alpha = make_up(galaxies)
    start = time.perf_counter()
    zoobots(alpha)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    print(f"{galaxies:,} galaxies: {seconds:.1f} s, {memory:.0f} MiB.\n")


def print_what_they_hold(alpha: Floats) -> None:
    for name, (lower, upper) in {"zoobot": zoobots(alpha), "averaged edges": average_edges(alpha)}.items():
        shape = (len(alpha), alpha.shape[2])
        below = [dirichlet.fraction_cdf(np.reshape(edge, shape), alpha, GROUPS) for edge in (lower, upper)]
        held = below[1] - below[0]
        print(f"The 90% intervals of {name} hold {held.min():.1%} to {held.max():.1%}, {held.mean():.1%} on average.")


def main() -> None:
    parser = timing.make_parser(__doc__, repeats=5)
    parser.add_argument("--galaxies", type=int, default=100_000, help="of the one long run")
    args = parser.parse_args()
    repeats, count = (1, 20) if args.quick else (args.repeats, 500)
    print_memory_and_time(1000 if args.quick else args.galaxies)
    alpha = make_up(count)
    peers = {
        "**zoobot**": zoobots,
        "bisection": bisect,
        f"quantiles of {DRAWS} draws": draw,
        "average of the samples' edges": average_edges,
    }
    cases = {name: partial(run, each, alpha) for name, each in peers.items()}
    difference = np.abs(np.ravel(bisect(alpha)) - np.ravel(zoobots(alpha))).max()
    if difference > 1e-7:
        raise RuntimeError(f"bisection finds other edges: off by {difference}")
    timing.print_comparison(timing.interleave(cases, repeats), dict.fromkeys(cases, count), "**zoobot**", "galaxy")
    print()
    print_what_they_hold(alpha)
    votes = np.random.default_rng(0).integers(0, 8, (count, alpha.shape[2]))
    others: dict[str, timing.Case] = {
        "fraction_intervals": partial(run, zoobots, alpha),
        "highest_density_intervals": partial(run, dirichlet.highest_density_intervals, alpha, GROUPS),
        "log_predictive": partial(run, predictive.log_predictive, votes, alpha, GROUPS),
        "vote_intervals, 40 votes": partial(run, predictive.vote_intervals, 40, alpha, GROUPS),
        "surprise, 1000 draws": partial(run, predictive.surprise, votes, alpha, GROUPS),
        "probability_leads": partial(run, uncertainty.probability_leads, alpha, GROUPS),
        "next_vote_uncertainty": partial(run, uncertainty.next_vote_uncertainty, alpha, GROUPS),
        "estimate_tree, 1000 draws": partial(run, trees.estimate_tree, alpha, SCHEMA),
    }
    print()
    seconds = timing.interleave(others, repeats)
    timing.print_comparison(seconds, dict.fromkeys(others, count), "fraction_intervals", "galaxy")
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
