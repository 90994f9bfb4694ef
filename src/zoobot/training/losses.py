"""The loss: how improbable the volunteers' votes are under the predicted Dirichlet concentrations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoobot.errors import SettingError
from zoobot.stats.concentrations import check_question_index_groups

__all__ = [
    "ClassificationLoss",
    "MultiquestionLoss",
    "RegressionLoss",
    "calculate_multiquestion_loss",
    "get_multiquestion_loss",
]

_LEAST_CHANCE = 1e-12


class MultiquestionLoss(nn.Module):
    """Negative log-likelihood of the Dirichlet-multinomial, for every question at once.

    For one question with votes k, N = Σk, and concentrations α, A = Σα, the loss is
    ``lnΓ(N+A) − lnΓ(A) − lnΓ(N+1) − Σ[lnΓ(k+α) − lnΓ(α) − lnΓ(k+1)]``,
    exactly 0 with exactly zero gradient where N = 0.

    Differences of lnΓ lose most digits in single precision once α is large, so the sum is done in float64,
    whatever autocast says (float32 on Apple's ``mps``, which has no float64), and comes back as float32,
    or as float64 for float64 concentrations.

    Args:
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Raises:
        SettingError: the groups do not cover the answers in order, or (when called) shapes do not fit.

    >>> loss = MultiquestionLoss([(0, 1)])
    >>> loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 3.0]]))  # -log(1/4)
    tensor([[1.3863]])
    """

    spread: Tensor
    gather: Tensor

    def __init__(self, question_index_groups: Sequence[tuple[int, int]]) -> None:
        """Check the groups and prepare the sums."""
        super().__init__()
        groups = check_question_index_groups(question_index_groups)
        answers, questions = groups[-1][1] + 1, len(groups)
        membership = torch.zeros(answers, questions)  # 1 where the answer belongs to the question
        for question, (first, last) in enumerate(groups):
            membership[first : last + 1, question] = 1
        # The formula is one function of the answers, and of the questions' totals with the other sign.
        # Products with matrices of 0 and ±1 put the totals beside the answers and sum up in the end.
        spread, gather = [torch.eye(answers), membership], [-membership, torch.eye(questions)]
        self.register_buffer("spread", torch.cat(spread, dim=1), persistent=False)
        self.register_buffer("gather", torch.cat(gather, dim=0), persistent=False)

    def forward(self, votes: Tensor, concentrations: Tensor) -> Tensor:
        """Losses (galaxies, questions) of votes and concentrations, both (galaxies, answers)."""
        answers = len(self.spread)
        if votes.shape != concentrations.shape or votes.ndim != 2 or votes.shape[1] != answers:
            raise SettingError(
                f"votes, concentrations: got shapes {tuple(votes.shape)} and {tuple(concentrations.shape)}, "
                f"expected both (galaxies, {answers}), the number of answers in the question_index_groups."
            )
        device = concentrations.device
        working = torch.float32 if device.type == "mps" else torch.float64
        result = torch.float64 if concentrations.dtype == torch.float64 else torch.float32
        with torch.autocast(device.type, enabled=False):
            spread, gather = self.spread.to(device, working), self.gather.to(device, working)
            k, alpha = votes.to(device, working) @ spread, concentrations.to(working) @ spread
            terms = torch.lgamma(k + alpha) - torch.lgamma(alpha) - torch.lgamma(k + 1)
            return (terms @ gather).to(result)


def get_multiquestion_loss(question_index_groups: Sequence[tuple[int, int]]) -> MultiquestionLoss:
    """Loss to train with: from votes and concentrations (galaxies, answers) it makes (galaxies, questions).

    Raises:
        SettingError: the groups do not cover the answers in order.

    >>> loss = get_multiquestion_loss([(0, 2), (3, 4)])
    >>> loss(torch.zeros(8, 5), torch.ones(8, 5)).shape
    torch.Size([8, 2])
    """
    return MultiquestionLoss(question_index_groups)


def calculate_multiquestion_loss(
    votes: Tensor, concentrations: Tensor, question_index_groups: Sequence[tuple[int, int]]
) -> Tensor:
    """Negative log-likelihood of votes, with the formula and precision of `MultiquestionLoss`.

    Args:
        votes: (galaxies, answers), counts ≥ 0; floats allowed.
        concentrations: (galaxies, answers), > 0. NaN gives NaN.
        question_index_groups: first and last index (inclusive) of the answers of each question.

    Returns:
        (galaxies, questions), exactly 0 where a question has no votes.

    Raises:
        SettingError: shapes do not fit, or the groups do not cover the answers in order.

    >>> calculate_multiquestion_loss(torch.tensor([[0, 0]]), torch.tensor([[1.0, 3.0]]), [(0, 1)])
    tensor([[0.]])
    """
    losses: Tensor = MultiquestionLoss(question_index_groups)(votes, concentrations)
    return losses


class ClassificationLoss(nn.Module):
    """Cross-entropy of one label a galaxy, ``−w_k Σ_j y_j log p_j``, k being the label.

    With label smoothing s, y is 1 − s for the label plus s / classes for each (Szegedy et al. 2016, arXiv:1512.00567).

    Args:
        weights: (classes,), of the galaxies of each class; 1 when left out.
        smoothing: s, from 0 to below 1.

    Raises:
        SettingError: the smoothing is out of range, or (when called) shapes do not fit.

    >>> loss = ClassificationLoss()
    >>> loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.75, 0.25]]))  # -log(1/4)
    tensor([[1.3863]])
    """

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None = None, smoothing: float = 0.0) -> None:
        """Check the smoothing."""
        super().__init__()
        if not 0 <= smoothing < 1:
            raise SettingError(f"label smoothing: got {smoothing}, expected a number from 0 to below 1, such as 0.1")
        self.smoothing = smoothing
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, labels: Tensor, chances: Tensor) -> Tensor:
        """Losses (galaxies, 1) of labels, 1 in the column of the class and 0 elsewhere, and chances, both alike."""
        _check_alike("labels, chances", labels, chances)
        smooth = (1 - self.smoothing) * labels + self.smoothing / labels.shape[1]
        losses = -(smooth * chances.clamp_min(_LEAST_CHANCE).log()).sum(dim=1, keepdim=True)
        return losses if self.weights is None else losses * (labels @ self.weights.to(labels))[:, None]


class RegressionLoss(nn.Module):
    """Square error of each number, in units of its scale.

    Args:
        scale: (numbers,), above 0: such as the standard deviation of what is learnt from.

    Raises:
        SettingError: when called, shapes do not fit.

    >>> RegressionLoss([2.0])(torch.tensor([[1.0]]), torch.tensor([[5.0]]))
    tensor([[4.]])
    """

    scale: Tensor

    def __init__(self, scale: Sequence[float]) -> None:
        """Keep the scale."""
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, targets: Tensor, predicted: Tensor) -> Tensor:
        """Losses (galaxies, numbers) of targets and predictions, both alike."""
        _check_alike("targets, predicted", targets, predicted)
        return ((predicted - targets) / self.scale.to(targets)) ** 2


def _check_alike(names: str, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 2:
        raise SettingError(f"{names}: got shapes {tuple(first.shape)} and {tuple(second.shape)}, expected two alike")
