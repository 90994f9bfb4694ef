"""The model: augmentation, encoder and head in one module, from one config."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoobot.errors import ModelError, SettingError
from zoobot.estimators.augment import PREPROCESSES, AugmentConfig
from zoobot.estimators.encoders import count_features, create_encoder
from zoobot.estimators.weight_loading import load_weights
from zoobot.estimators.weights import PretrainedWeights, read_weights
from zoobot.schemas import Schema

__all__ = [
    "HEADS",
    "DirichletHead",
    "Head",
    "LinearHead",
    "Model",
    "ModelConfig",
    "SoftmaxHead",
    "WideHead",
    "build_model",
    "get_model",
    "register_head",
]

_Part = TypeVar("_Part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(AugmentConfig):
    """All that a model is built from, save its weights; adds the parts to the settings of the images.

    Raises:
        SettingError: all the faults at once, a line each.

    >>> config = ModelConfig(output_dim=34, input_size=300, crop_size=225, resize_size=224)
    >>> ModelConfig.from_dict(config.to_dict()) == config
    True
    """

    output_dim: int
    """How many answers are predicted."""
    encoder: str = "efficientnet_b0"
    """Name of the encoder: registered, or one of timm's."""
    head: str = "dirichlet"
    """Name of the head."""
    preprocess: str = "augment"
    """Name of the preprocessing."""
    fit: str = "crop"
    """How images that are not square were made so: "crop" or "pad"; prediction does the same."""
    fits: dict[str, Any] | None = None
    """How FITS files became images, as ``zoobot.data.fits_images.FitsConfig`` gives it, if it is known."""
    weights: dict[str, Any] | None = None
    """Where the encoder's first weights came from: source, sha256 and the tensors they lacked; None: from scratch."""
    dropout_rate: float = 0.2
    """Share of the features that dropout leaves out, from 0 to below 1."""
    drop_path_rate: float = 0.0
    """Share of galaxies for which the encoder's last block is skipped in training; the first's never is."""
    targets: tuple[str, ...] = ()
    """What a regression predicts; empty where a schema names the answers."""

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if not (type(self.output_dim) is int and 1 <= self.output_dim <= 65_536):
            yield f"output_dim: got {self.output_dim!r}, expected a whole number from 1 to 65536"
        for name in ("encoder", "head", "preprocess"):
            if not isinstance(getattr(self, name), str):
                yield f"{name}: got {getattr(self, name)!r}, expected a name"
        if self.fit not in ("crop", "pad"):
            yield f"fit: got {self.fit!r}, expected 'crop' or 'pad'"
        for name in ("fits", "weights"):
            if not isinstance(getattr(self, name), dict | None):
                yield f"{name}: got {getattr(self, name)!r}, expected a dictionary, or None"
        for name in ("dropout_rate", "drop_path_rate"):
            if type(getattr(self, name)) not in (int, float) or not 0 <= getattr(self, name) < 1:
                yield f"{name}: got {getattr(self, name)!r}, expected a number from 0 to below 1"
        if not (isinstance(self.targets, tuple) and all(isinstance(name, str) for name in self.targets)):
            yield f"targets: got {self.targets!r}, expected a tuple of names"
        elif len(self.targets) not in (0, self.output_dim):
            yield f"targets: got {len(self.targets)} names, expected none, or one for each of {self.output_dim} outputs"

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain types that JSON can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ModelConfig":
        """Rebuild a config from :meth:`to_dict`.

        Raises:
            SettingError: A setting is unknown, missing or out of range.
        """
        fields = dataclasses.fields(cls)
        unknown = sorted(set(settings) - {field.name for field in fields})
        required = {field.name for field in fields if field.default is dataclasses.MISSING}
        missing = sorted(required - set(settings))
        if unknown or missing:
            faults = [f"{name}: not a setting of a model" for name in unknown]
            raise SettingError("\n".join(faults + [f"{name}: missing" for name in missing]))
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        return cls(**plain)


class Head(nn.Module):
    """From features to concentrations: dropout, a linear layer, and what a subclass makes of its output.

    A head of your own gives :meth:`activate` and is registered with :func:`register_head`.
    Computed in float32, also under autocast.

    Attributes:
        task: ``votes``; ``classification``, of galaxies that have one label each; or ``regression``.
        outputs: what comes out: ``concentrations``, the ``probabilities`` of classes, or ``numbers``.
    """

    task: ClassVar[str] = "votes"
    outputs: ClassVar[str] = "concentrations"

    def __init__(self, n_features: int, output_dim: int, dropout_rate: float) -> None:
        """Build the linear layer, (n_features) to (output_dim)."""
        super().__init__()
        self.dropout_rate = dropout_rate
        self.linear = nn.Linear(n_features, output_dim)

    def activate(self, logits: Tensor) -> Tensor:
        """Turn the linear layer's output, any real numbers, into concentrations above 0 of the same shape."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Predict from features (batch, n_features): concentrations (batch, output_dim), float32."""
        with torch.autocast(features.device.type, enabled=False):
            kept = F.dropout(features.float(), self.dropout_rate, self.training)
            return self.activate(F.linear(kept, self.linear.weight.float(), self.linear.bias.float()))

    def sample(self, features: Tensor, n_samples: int, seed: int = 0) -> Tensor:
        """Predict with ``n_samples`` thinned networks (Monte Carlo dropout, arXiv:1506.02142).

        Each sample is one dropout mask over the features, drawn from ``seed`` and shared by all galaxies:
        what a galaxy gets depends neither on its batch nor on the order. A mask thins the weights: all
        samples together are one matrix product. A single sample is the whole network, without dropout.

        Args:
            features: (batch, n_features).
            n_samples: How many.
            seed: Of the masks.

        Returns:
            Concentrations (batch, n_samples, output_dim), float32; the same whether training or evaluating.

        >>> head = DirichletHead(n_features=8, output_dim=2, dropout_rate=0.5)
        >>> head.sample(torch.ones(4, 8), n_samples=3).shape
        torch.Size([4, 3, 2])
        """
        weight, bias = self.linear.weight.float(), self.linear.bias.float()
        masks = torch.ones(n_samples, weight.shape[1])
        if n_samples > 1:
            draws = torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed))
            masks = (draws >= self.dropout_rate) / (1 - self.dropout_rate)
        thinned = masks.to(weight.device)[:, None] * weight
        with torch.autocast(features.device.type, enabled=False):
            logits = F.linear(features.float(), thinned.flatten(0, 1))
            return self.activate(logits.view(len(features), n_samples, len(bias)) + bias)


class DirichletHead(Head):
    """Concentrations from 1 to 101, ``1 + 100 sigmoid(x)`` (Walmsley et al. 2022, arXiv:2102.08414).

    >>> head = DirichletHead(n_features=8, output_dim=2, dropout_rate=0.2)
    >>> [round(concentration, 1) for concentration in head(torch.zeros(1, 8))[0].tolist()]
    [2.8, 2.8]
    """

    def __init__(self, n_features: int, output_dim: int, dropout_rate: float) -> None:
        """Start with concentrations near 3, almost no opinion.

        From a bias of 0, hence concentrations of 51, a model is at first sure that all answers are equally
        likely, and its first steps go into unlearning that (the loss of Galaxy Zoo 2 votes is 110 there, 57
        here). Lower still, the sigmoid is so flat that learning is slow.
        """
        super().__init__(n_features, output_dim, dropout_rate)
        nn.init.constant_(self.linear.bias, -4.0)

    def activate(self, logits: Tensor) -> Tensor:
        """Map real numbers to the range 1 to 101."""
        return 1 + 100 * torch.sigmoid(logits)


class WideHead(Head):
    """Concentrations from 0.01 to 100, ``10^(4 sigmoid(x) − 2)``: below 1 too, for votes that nearly all agree.

    A Dirichlet of K answers with concentrations of at least 1 is no wider than flat. Where galaxies are all of one
    answer or all of another, and it cannot be seen of which, the posterior should be wider: highest at the edges.

    >>> head = WideHead(n_features=8, output_dim=2, dropout_rate=0.2)
    >>> head(torch.zeros(1, 8))[0].tolist()
    [1.0, 1.0]
    """

    def __init__(self, n_features: int, output_dim: int, dropout_rate: float) -> None:
        """Start with concentrations near 1: no opinion."""
        super().__init__(n_features, output_dim, dropout_rate)
        nn.init.zeros_(self.linear.bias)

    def activate(self, logits: Tensor) -> Tensor:
        """Bound them, evenly in their logarithm."""
        return 10 ** (4 * torch.sigmoid(logits.float()) - 2)


class SoftmaxHead(Head):
    """The chance of each class, which sum to 1: for galaxies with one label each instead of votes.

    >>> SoftmaxHead(n_features=8, output_dim=2, dropout_rate=0.2)(torch.zeros(1, 8)).sum().round(decimals=3).item()
    1.0
    """

    task = "classification"
    outputs = "probabilities"

    def activate(self, logits: Tensor) -> Tensor:
        """Make chances of them."""
        return logits.softmax(dim=-1)


class LinearHead(Head):
    """Numbers, such as a bulge fraction: for regression.

    The layer works on the scale of :attr:`location` and :attr:`scale`, which training sets to the mean and the standard
    deviation of what it learns from.
    """

    task = "regression"
    outputs = "numbers"
    location: Tensor
    scale: Tensor

    def __init__(self, n_features: int, output_dim: int, dropout_rate: float) -> None:
        """Start with the scale as it is."""
        super().__init__(n_features, output_dim, dropout_rate)
        self.register_buffer("location", torch.zeros(output_dim))
        self.register_buffer("scale", torch.ones(output_dim))

    def activate(self, logits: Tensor) -> Tensor:
        """Bring them back to the scale of the targets."""
        return self.location + self.scale * logits


HEADS: dict[str, Callable[[int, int, float], Head]] = {
    "dirichlet": DirichletHead,
    "wide": WideHead,
    "softmax": SoftmaxHead,
    "linear": LinearHead,
}
"""Heads by name: called with the number of features, the number of answers and the dropout rate."""


def register_head(name: str, head: Callable[[int, int, float], Head]) -> None:
    """Make a head of your own available to ``get_model(head=name)``; register it before loading a model, too.

    >>> class UnboundedHead(Head):
    ...     def activate(self, logits):
    ...         return torch.nn.functional.softplus(logits) + 1e-3
    >>> register_head("unbounded", UnboundedHead)
    >>> _ = HEADS.pop("unbounded")
    """
    HEADS[name] = head


class Model(nn.Module):
    """Images to concentrations: ``head(encoder(preprocess(images)))``.

    Made by :func:`get_model`; ``config`` and ``schema`` say what it is, and each part can be replaced.
    """

    def __init__(
        self,
        preprocess: nn.Module,
        encoder: nn.Module,
        head: Head,
        config: ModelConfig,
        schema: Schema | None = None,
    ) -> None:
        """Join the parts; ``schema`` names the answers, in the order of the head's output."""
        super().__init__()
        if schema is not None and len(schema.label_cols) != config.output_dim:
            raise SettingError(
                f"output_dim: got {config.output_dim}, but schema {schema.name} has "
                f"{len(schema.label_cols)} answers: leave output_dim out"
            )
        self.preprocess = preprocess
        self.encoder = encoder
        self.head = head
        self.config = config
        self.schema = schema

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Predict concentrations (batch, answers), float32, of uint8 images (batch, height, width, channels).

        ``generator`` gives the augmentation's random numbers in training.

        Raises:
            ModelError: The images' size or channels are not the model's.
        """
        concentrations: Tensor = self.head(self.represent(images, generator))
        return concentrations

    def represent(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Give the encoder's features (batch, features) of uint8 images (batch, height, width, channels)."""
        features: Tensor = self.encoder(self.preprocess(images, generator))
        expected = (len(images), count_features(self.encoder))
        if features.shape != expected:
            raise ModelError(
                f"encoder: {self.config.encoder} gave features of shape {tuple(features.shape)}, expected "
                f"{expected}: average over height and width, and set num_features"
            )
        return features

    def sample(self, images: Tensor, n_samples: int, seed: int = 0) -> Tensor:
        """Predict (batch, n_samples, answers) with the encoder run once; see :meth:`Head.sample`."""
        if n_samples < 1:
            raise SettingError(f"n_samples: got {n_samples}, expected at least 1")
        return self.head.sample(self.represent(images), n_samples, seed)


def get_model(
    *,
    input_size: int,
    schema: Schema | None = None,
    output_dim: int | None = None,
    crop_size: int | None = None,
    resize_size: int | None = None,
    channels: int = 3,
    encoder: str | None = None,
    weights: str | Path | None = None,
    head: str = "dirichlet",
    dropout_rate: float = 0.2,
    **settings: Any,
) -> Model:
    """Build a model, with fresh weights or, the encoder, with pretrained ones.

    Args:
        input_size: Side of the square images, in pixels.
        schema: The questions and answers to predict.
        output_dim: How many answers to predict, where there is no schema.
        crop_size: Side of the crop; three quarters of ``input_size`` if None.
        resize_size: Side of what the encoder gets; ``crop_size`` if None.
        channels: 1 for greyscale, 3 for colour.
        encoder: One of timm's names, or registered with ``register_encoder``; that of the weights if None, or
            efficientnet_b0.
        weights: What the encoder starts from, as :func:`zoobot.estimators.weights.read_weights` takes it: ImageNet's,
            a model folder, a name on the hub, a checkpoint file. They bring their ``mean`` and ``std``, unless given.
        head: Registered with :func:`register_head`.
        dropout_rate: Of the head.
        settings: Other fields of :class:`ModelConfig`, such as ``rotate=False`` or ``zoom=(0.9, 1.2)``.

    Raises:
        SettingError: A setting is out of range or unknown, or ``output_dim`` does not fit the schema.
        ModelError: There is no such encoder, head or preprocessing, or the weights cannot be had or do not fit.

    >>> model = get_model(output_dim=34, input_size=64, channels=1, encoder="resnet10t")
    >>> model(torch.zeros(2, 64, 64, 1, dtype=torch.uint8)).shape
    torch.Size([2, 34])
    """
    if output_dim is None:
        if schema is None:
            raise SettingError("schema: got neither schema nor output_dim, expected one: schema=schemas.load(...)")
        output_dim = len(schema.label_cols)
    if crop_size is None:
        crop_size = max(1, int(0.75 * input_size))
    pretrained = None if weights is None else read_weights(weights, encoder)
    if pretrained is not None:
        encoder = pretrained.encoder or encoder
        settings = {**pretrained.normalisation(channels), **settings}
    config = ModelConfig.from_dict(
        {
            "input_size": input_size,
            "output_dim": output_dim,
            "crop_size": crop_size,
            "resize_size": crop_size if resize_size is None else resize_size,
            "channels": channels,
            "encoder": encoder or "efficientnet_b0",
            "head": head,
            "dropout_rate": dropout_rate,
            **settings,
        }
    )
    model = build_model(config, schema)
    if pretrained is not None:
        _start_from(model, pretrained)
    _check_that_it_runs(model)
    return model


def _start_from(model: Model, weights: PretrainedWeights) -> None:
    config = model.config
    lacking = load_weights(model.encoder, weights, config.encoder, config.channels, config.resize_size)
    origin = {"source": weights.source, "sha256": weights.sha256, "lacking": lacking}
    model.config = dataclasses.replace(config, weights=origin)


def _check_that_it_runs(model: Model) -> None:
    """Some encoders cannot take images as small as asked for, and say so in many ways."""
    config = model.config
    images = torch.zeros(1, config.input_size, config.input_size, config.channels, dtype=torch.uint8)
    try:
        with torch.inference_mode():
            model.eval()(images)
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"encoder {config.encoder} cannot take images of {config.resize_size} pixels ({reason}); "
            "try a larger resize_size or another encoder"
        ) from error
    finally:
        model.train()


def build_model(config: ModelConfig, schema: Schema | None = None) -> Model:
    """Build the model that a config describes, with fresh weights.

    Raises:
        ModelError: There is no such encoder, head or preprocessing.
    """
    create_preprocess = _look_up(PREPROCESSES, "preprocess", config.preprocess)
    create_head = _look_up(HEADS, "head", config.head)
    options = {"drop_path_rate": config.drop_path_rate} if config.drop_path_rate else {}
    encoder = create_encoder(config.encoder, config.channels, config.resize_size, **options)
    head = create_head(count_features(encoder, config.encoder), config.output_dim, config.dropout_rate)
    return Model(create_preprocess(config), encoder, head, config, schema)


def _look_up(registry: Mapping[str, _Part], kind: str, name: str) -> _Part:
    if name not in registry:
        raise ModelError(
            f"{kind}: unknown name {name!r}, expected one of {', '.join(sorted(registry))}; "
            f"your own must be registered: register_{kind}"
        )
    return registry[name]
