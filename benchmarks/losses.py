"""The loss with its gradient: closed form for all questions, beside one distribution object per question.

Run ``python benchmarks/losses.py``. A batch is 128 galaxies with 34 answers to ten questions. Pyro takes part where
installed: ``pip install pyro-ppl``.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import timing
import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, constraints

from zoobot.training import losses

GROUPS = [(0, 2), (3, 4), (5, 6), (7, 9), (10, 14), (15, 17), (18, 20), (21, 23), (24, 29), (30, 33)]
RUNS = 50  # a round
Loss = Callable[[Tensor, Tensor], Tensor]


class DirichletMultinomial(Distribution):
    """Votes of one question; torch.distributions has Dirichlet and Multinomial, but not the two together."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "concentration": Dirichlet.arg_constraints["concentration"],
        "total_count": constraints.nonnegative,
    }
    support = constraints.real_vector

    def __init__(self, concentration: Tensor, total_count: Tensor) -> None:
        self.concentration, self.total_count = concentration, total_count
        super().__init__(concentration.shape[:-1], concentration.shape[-1:])

    def log_prob(self, votes: Tensor) -> Tensor:
        self._validate_sample(votes)
        alpha, count = self.concentration, self.total_count
        answers = torch.lgamma(votes + alpha) - torch.lgamma(alpha) - torch.lgamma(votes + 1)
        total = alpha.sum(-1)
        return answers.sum(-1) + torch.lgamma(total) - torch.lgamma(total + count) + torch.lgamma(count + 1)


def per_question(log_prob: Loss) -> Loss:
    def loss(votes: Tensor, concentrations: Tensor) -> Tensor:
        each = [-log_prob(votes[:, a : b + 1], concentrations[:, a : b + 1]) for a, b in GROUPS]
        return torch.stack(each, dim=1)

    return loss


def torch_log_prob(votes: Tensor, concentrations: Tensor) -> Tensor:
    return DirichletMultinomial(concentrations, votes.sum(-1)).log_prob(votes)


def find_peers() -> dict[str, Loss]:
    peers = {"torch.distributions, one object per question": per_question(torch_log_prob)}
    try:
        pyro = importlib.import_module("pyro.distributions").DirichletMultinomial
    except ImportError:
        return peers

    def pyro_log_prob(votes: Tensor, concentrations: Tensor) -> Tensor:
        log_prob: Tensor = pyro(concentrations, total_count=votes.sum(-1)).log_prob(votes)
        return log_prob

    return {**peers, "pyro, one object per question": per_question(pyro_log_prob)}


def run(loss: Loss, votes: Tensor, concentrations: Tensor) -> None:
    leaf, ones = concentrations.clone().requires_grad_(), torch.ones(len(votes), len(GROUPS))
    for _ in range(RUNS):
        torch.autograd.grad(loss(votes, leaf), leaf, ones)


def main() -> None:
    args = timing.make_parser(__doc__, repeats=15).parse_args()
    repeats = 1 if args.quick else args.repeats
    generator = torch.Generator().manual_seed(0)
    votes = torch.randint(0, 20, (128, 34), generator=generator).float()
    concentrations = 1 + 100 * torch.rand(128, 34, generator=generator)
    peers = find_peers()
    ours = losses.get_multiquestion_loss(GROUPS)
    for name, loss in peers.items():
        difference = (loss(votes, concentrations) - ours(votes, concentrations)).abs().max()
        if difference > 0.01:
            raise RuntimeError(f"{name} computes something else: off by {difference}")
    everyone: dict[str, Loss] = {"**zoobot**": ours, **peers}
    cases = {name: partial(run, loss, votes, concentrations) for name, loss in everyone.items()}
    seconds = timing.interleave(cases, repeats)
    timing.print_comparison(seconds, dict.fromkeys(cases, RUNS), "**zoobot**", "batch")
    timing.print_machine(repeats)


if __name__ == "__main__":
    main()
