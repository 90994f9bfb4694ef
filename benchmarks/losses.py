"""The loss with its gradient: closed form for all questions, beside one distribution object per question.

Run ``python benchmarks/losses.py``; it prints rows of a markdown table: milliseconds per batch of 128 x 34.
"""

import importlib
import statistics
import time
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, constraints

from zoobot.training import losses

GROUPS = [(0, 2), (3, 4), (5, 6), (7, 9), (10, 14), (15, 17), (18, 20), (21, 23), (24, 29), (30, 33)]
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


def milliseconds(loss: Loss, votes: Tensor, concentrations: Tensor, runs: int = 50) -> float:
    leaf, ones = concentrations.clone().requires_grad_(), torch.ones(len(votes), len(GROUPS))
    start = time.perf_counter()
    for _ in range(runs):
        torch.autograd.grad(loss(votes, leaf), leaf, ones)
    return 1000 * (time.perf_counter() - start) / runs


def main(repeats: int = 15) -> None:
    generator = torch.Generator().manual_seed(0)
    votes = torch.randint(0, 20, (128, 34), generator=generator).float()
    concentrations = 1 + 100 * torch.rand(128, 34, generator=generator)
    peers = find_peers()
    ours = losses.get_multiquestion_loss(GROUPS)
    everyone: dict[str, Loss] = {"zoobot": ours, **peers}
    times: dict[str, list[float]] = {name: [] for name in everyone}
    for name, loss in peers.items():
        difference = (loss(votes, concentrations) - ours(votes, concentrations)).abs().max()
        if difference > 0.01:
            raise RuntimeError(f"{name} computes something else: off by {difference}")
    for _ in range(repeats):  # interleaved, so that whatever else runs slows all of them
        for name, loss in everyone.items():
            times[name].append(milliseconds(loss, votes, concentrations))
    mine = statistics.median(times.pop("zoobot"))
    for name, values in times.items():
        theirs = statistics.median(values)
        row = [
            "loss with gradient, 128 x 34",
            f"{mine:.2f} ms",
            f"{theirs:.2f} ms",
            name,
            f"{theirs / mine:.1f} x",
        ]
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
