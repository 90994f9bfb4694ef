"""Laws of the multi-question Dirichlet-multinomial loss."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy import special, stats

from zoobot.errors import SettingError
from zoobot.training import losses

GROUPS = [(0, 2), (3, 4), (5, 9)]


def made_up(galaxies=40, most_votes=40, highest=101.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    votes = torch.randint(0, most_votes, (galaxies, 10), generator=generator).to(dtype)
    concentrations = highest ** torch.rand(galaxies, 10, generator=generator, dtype=torch.float64)
    return votes, concentrations.to(dtype)


def exact_gradient(votes, concentrations):
    """Of the losses summed over questions, from scipy's digamma in float64."""
    k, alpha = votes.double().numpy(), concentrations.double().numpy()
    gradient = special.psi(alpha) - special.psi(alpha + k)
    for first, last in GROUPS:
        total, count = (each[:, first : last + 1].sum(axis=1, keepdims=True) for each in (alpha, k))
        gradient[:, first : last + 1] += special.psi(total + count) - special.psi(total)
    return gradient


def test_equals_scipy():
    votes, concentrations = made_up()
    result = losses.calculate_multiquestion_loss(votes, concentrations, GROUPS)
    assert result.dtype == torch.float64
    for question, (first, last) in enumerate(GROUPS):
        k, alpha = votes[:, first : last + 1].numpy(), concentrations[:, first : last + 1].numpy()
        expected = -stats.dirichlet_multinomial.logpmf(k.astype(int), alpha, k.sum(axis=1).astype(int))
        np.testing.assert_allclose(result[:, question], expected, rtol=1e-10)


def test_hand_computed():
    # one vote: its probability is the expected fraction; two equal votes of a uniform pair: 1/3
    votes, concentrations = torch.tensor([[0, 0, 1, 2, 0]]), torch.tensor([[1.0, 2.0, 5.0, 1.0, 1.0]])
    result = losses.calculate_multiquestion_loss(votes, concentrations, [(0, 2), (3, 4)])
    torch.testing.assert_close(result, torch.tensor([[5 / 8, 1 / 3]]).log().neg())


def test_probabilities_of_all_votes_sum_to_one():
    every = [k for k in itertools.product(range(5), repeat=3) if sum(k) == 4]
    concentrations = torch.tensor([[0.7, 3.0, 20.0]], dtype=torch.float64).expand(len(every), 3)
    result = losses.calculate_multiquestion_loss(torch.tensor(every), concentrations, [(0, 2)])
    assert torch.exp(-result).sum().item() == pytest.approx(1, abs=1e-12)


def test_gradient_by_finite_differences():
    votes, concentrations = made_up(galaxies=3)
    concentrations.requires_grad_()
    loss = losses.get_multiquestion_loss(GROUPS)
    assert torch.autograd.gradcheck(lambda alpha: loss(votes, alpha), concentrations)


@pytest.mark.parametrize("highest", [101.0, 1e4])
def test_single_precision_keeps_its_digits(highest):
    votes, concentrations = made_up(most_votes=200, highest=highest, dtype=torch.float32)
    concentrations.requires_grad_()
    loss = losses.get_multiquestion_loss(GROUPS)
    result = loss(votes, concentrations)
    result.sum().backward()
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.detach(), loss(votes.double(), concentrations.detach().double()), rtol=1e-6)
    np.testing.assert_allclose(concentrations.grad, exact_gradient(votes, concentrations.detach()), rtol=1e-5)


def test_no_votes_cost_exactly_nothing():
    votes, concentrations = made_up(dtype=torch.float32)
    votes[:, 3:5] = 0
    concentrations.requires_grad_()
    result = losses.calculate_multiquestion_loss(votes, concentrations, GROUPS)
    result.sum().backward()
    assert (result[:, 1] == 0).all()
    assert (concentrations.grad[:, 3:5] == 0).all()
    assert (result[:, [0, 2]] > 0).all()


def test_questions_are_independent_of_one_another():
    votes, concentrations = made_up()
    alone = losses.calculate_multiquestion_loss(votes[:, 3:5], concentrations[:, 3:5], [(0, 1)])
    together = losses.calculate_multiquestion_loss(votes, concentrations, GROUPS)
    torch.testing.assert_close(alone[:, 0], together[:, 1], rtol=1e-12, atol=0)


def test_float_votes_lie_between_whole_ones():
    concentrations = torch.tensor([[2.0, 3.0]]).expand(3, 2)
    votes = torch.tensor([[1.0, 0.0], [1.5, 0.0], [2.0, 0.0]])
    first, between, last = losses.calculate_multiquestion_loss(votes, concentrations, [(0, 1)])[:, 0]
    assert first < between < last
    expected = np.log(special.beta(2, 3) / special.beta(3.5, 3))  # the binomial coefficient is 1
    assert between.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [1e-30, 1e-3, 1e4, 1e30])
def test_extreme_values_are_finite(value):
    concentrations = torch.full((2, 10), value, requires_grad=True)
    votes = torch.tensor([[0.0], [1e6]]).expand(2, 10)
    result = losses.calculate_multiquestion_loss(votes, concentrations, GROUPS)
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert torch.isfinite(concentrations.grad).all()


def test_autocast_changes_nothing():
    votes, concentrations = made_up(dtype=torch.float32)
    loss = losses.get_multiquestion_loss(GROUPS)
    expected = loss(votes, concentrations)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(votes, concentrations), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_full(dtype):
    votes, concentrations = made_up(dtype=dtype)
    result = losses.calculate_multiquestion_loss(votes, concentrations, GROUPS)
    expected = losses.calculate_multiquestion_loss(votes.float(), concentrations.float(), GROUPS)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_cuda_without_moving_the_loss():
    votes, concentrations = made_up(dtype=torch.float32)
    loss = losses.get_multiquestion_loss(GROUPS)
    torch.testing.assert_close(loss(votes.cuda(), concentrations.cuda()).cpu(), loss(votes, concentrations))


def test_loss_pickles_and_adds_nothing_to_a_model():
    votes, concentrations = made_up()
    loss = losses.get_multiquestion_loss(GROUPS)
    again = pickle.loads(pickle.dumps(loss))
    assert torch.equal(again(votes, concentrations), loss(votes, concentrations))
    assert not loss.state_dict()


@pytest.mark.parametrize("groups", [[], [(1, 2)], [(0, 2), (2, 3)], [(0, 1), (3, 4)], [(0, -1)], [(0, 1, 2)]])
def test_groups_that_do_not_cover_the_answers(groups):
    with pytest.raises(SettingError, match="question_index_groups"):
        losses.get_multiquestion_loss(groups)


@pytest.mark.parametrize(("votes", "concentrations"), [((4, 9), (4, 9)), ((4, 10), (3, 10)), ((10,), (10,))])
def test_shapes_that_do_not_fit(votes, concentrations):
    with pytest.raises(SettingError, match="votes, concentrations"):
        losses.calculate_multiquestion_loss(torch.zeros(votes), torch.ones(concentrations), GROUPS)
