"""Fitting a head alone: the layer is the best there is, and comes back for features as they are."""

import pytest
import torch

from zoobot.errors import TrainingError
from zoobot.estimators.define_model import DirichletHead, LinearHead, SoftmaxHead, get_model
from zoobot.training.head_fitting import PENALTIES, fit_head, represent_views
from zoobot.training.losses import ClassificationLoss, MultiquestionLoss, RegressionLoss


def make_features(galaxies=60, views=2, features=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(galaxies, views, features, generator=generator) * torch.tensor([1.0, 2, 3, 4, 5])


def scale(features):
    """To mean 0 and, all by the same factor, a mean variance of 1: (galaxies, features), of the first view."""
    return (features[:, 0] - features.mean((0, 1))) / features.var((0, 1)).mean().sqrt()


def test_numbers_get_the_ridge_regression_of_linear_algebra():
    features = make_features(views=1)
    truth = features[:, 0] @ torch.tensor([[0.5], [-0.2], [0.1], [0.3], [0.0]]) + 2
    values = truth + 0.1 * torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
    head = LinearHead(5, 1, 0.0)
    head.location.copy_(values.mean(0)), head.scale.copy_(values.std(0, unbiased=False))
    fitted = fit_head(head, features, values, RegressionLoss(head.scale.tolist()), torch.arange(60) % 5)
    scaled = scale(features)
    targets = (values - head.location) / head.scale
    # minimum of |Xw - t|²/n + penalty |w|²; both are centred, so that the bias is 0
    weight = torch.linalg.solve(scaled.T @ scaled / 60 + fitted.penalty * torch.eye(5), scaled.T @ targets / 60)
    expected = head.location + head.scale * (scaled @ weight)
    torch.testing.assert_close(head(features[:, 0]).detach(), expected, rtol=1e-3, atol=1e-3)
    assert fitted.penalty <= 0.03  # little noise
    assert min(fitted.held_back_losses) < 0.1 * fitted.held_back_losses[0]


def test_noise_gets_a_strong_penalty():
    generator = torch.Generator().manual_seed(3)
    features, values = torch.randn(60, 1, 200, generator=generator), torch.randn(60, 1, generator=generator)
    fitted = fit_head(LinearHead(200, 1, 0.0), features, values, RegressionLoss([1.0]), torch.arange(60) % 5)
    assert fitted.penalty >= 1


@pytest.mark.parametrize("kind", [SoftmaxHead, DirichletHead])
def test_it_does_not_matter_what_units_features_have(kind):
    features = make_features(galaxies=40, views=1)
    side = (features[:, :, 4].mean(1) > 3).float()
    values = torch.stack([side, 1 - side], dim=1) * (1 if kind is SoftmaxHead else 20)
    loss = ClassificationLoss() if kind is SoftmaxHead else MultiquestionLoss([(0, 1)])
    outputs = []
    for factor in (1.0, 100.0):
        torch.manual_seed(0)
        head = kind(5, 2, 0.0)
        fit_head(head, factor * features, values, loss, torch.arange(40) % 4)
        outputs.append(head(factor * features[:, 0]).detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-2, atol=1e-2)
    assert ((outputs[0][:, 0] > outputs[0][:, 1]) == side.bool()).float().mean() > 0.9


def test_galaxies_of_no_fold_are_never_held_back():
    features, values = make_features(views=1), make_features(views=1, seed=2)[:, 0, :1] - 3
    held = torch.arange(60) < 12
    head = LinearHead(5, 1, 0.0)
    torch.nn.init.zeros_(head.linear.bias)
    fitted = fit_head(head, features, values, RegressionLoss([1.0]), torch.where(held, 0, -1))
    scaled = scale(features)
    design = torch.cat([scaled, torch.ones(60, 1)], dim=1).double()
    # ridge regression on the others, whose bias is held near where it began by a penalty of 0.001
    for penalty, loss in zip(PENALTIES, fitted.held_back_losses, strict=True):
        others = design[~held]
        weighing = others.T @ others / 48 + torch.diag(torch.tensor([penalty] * 5 + [1e-3]).double())
        layer = torch.linalg.solve(weighing, others.T @ values[~held].double() / 48)
        assert loss == pytest.approx(((design[held] @ layer - values[held]) ** 2).mean().item(), rel=1e-3)


def test_features_that_hardly_vary_do_not_drown_the_others():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 1, 300, generator=generator) * torch.cat([torch.ones(5), torch.full((295,), 1e-4)])
    values = features[:, 0, :1] + 0.1 * torch.randn(50, 1, generator=generator)
    head = LinearHead(300, 1, 0.0)
    fit_head(head, features[:40], values[:40], RegressionLoss([1.0]), torch.arange(40) % 4)
    assert (head(features[40:, 0]) - values[40:]).square().mean() < 0.1 * values[40:].var()


def test_features_that_are_no_numbers_are_refused():
    features = make_features()
    features[3, 1, 2] = torch.nan
    with pytest.raises(TrainingError, match="finite"):
        fit_head(LinearHead(5, 1, 0.0), features, torch.rand(60, 1), RegressionLoss([1.0]), torch.arange(60) % 5)


def test_views_are_those_of_turned_images():
    model = get_model(output_dim=2, input_size=32, encoder="test_resnet", crop_size=32)
    images = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8)

    class Images:
        def __init__(self, pixels):
            self.pixels = pixels

        def __len__(self):
            return len(self.pixels)

        def __getitems__(self, positions):
            from zoobot.data.datasets import Batch

            return Batch(self.pixels[positions], torch.zeros(len(positions), 2), [""] * len(positions), [], None)

    straight, turned = (represent_views(model, Images(each)) for each in (images, torch.rot90(images, 1, (1, 2))))
    assert straight.shape == (3, 8, model.head.linear.in_features)
    torch.testing.assert_close(straight.mean(1), turned.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(straight[:, 1], turned[:, 0], rtol=1e-4, atol=1e-5)


def test_with_few_labels_a_galaxy_models_answers_are_taken_instead_of_its_features():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 1, 200, generator=generator)
    known = torch.zeros(3, 200)
    known[0, :50], known[1, 50:100], known[2, 100:] = 1.0, 1.0, 1.0
    values = (features[:, 0] @ known[1:2].T) / 7 + 5
    others = torch.randn(200, 1, 200, generator=generator)
    truth = (others[:, 0] @ known[1:2].T) / 7 + 5
    errors = []
    for given in (None, known):
        head = LinearHead(200, 1, 0.0)
        fitted = fit_head(head, features, values, RegressionLoss([1.0]), torch.arange(30) % 5, given)
        assert fitted.from_answers == (given is not None)
        errors.append((head(others[:, 0]) - truth).square().mean().item())
    assert errors[1] < 0.1 * errors[0]


def test_answers_that_tell_nothing_are_left_alone():
    features = make_features(views=1)
    values = features[:, 0, :1]
    known = torch.eye(5)[1:2]  # looks at another feature
    head = LinearHead(5, 1, 0.0)
    assert not fit_head(head, features, values, RegressionLoss([1.0]), torch.arange(60) % 5, known).from_answers
