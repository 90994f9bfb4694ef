"""Finetuning: a pretrained encoder learns from a few hundred labels of one's own."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoobot.data.catalog import read_catalog
from zoobot.data.datasets import ImageDataset, MemoryDataset, describe_dataset, load_images, make_loader
from zoobot.data.fits_images import FitsConfig, looks_like_fits
from zoobot.errors import ModelError, SettingError, ZoobotError
from zoobot.estimators.augment import make_views
from zoobot.estimators.checkpoint import load_config, load_model, save_model, update_metadata
from zoobot.estimators.define_model import LinearHead, Model, ModelConfig, get_model
from zoobot.processes import count_cores
from zoobot.schemas import Schema
from zoobot.stats.label_scores import score_classes, score_numbers
from zoobot.training.callbacks import LAST_NAME
from zoobot.training.head_fitting import FittedHead, fit_head, represent_views
from zoobot.training.labels import Labels, assign_folds, find_scale, make_loss, read_labels
from zoobot.training.training_config import TrainConfig, clear_folder, train_estimator

__all__ = ["FinetuneConfig", "Finetuned", "Learner", "find_fits", "finetune"]

Positions: TypeAlias = NDArray[np.intp]

_HEADS = {"classification": "softmax", "regression": "linear", "votes": "dirichlet"}
_IMAGE_SIZE = 212
_SEEN = 5_000  # images shown to the model in a training, by default, if that is not fewer or more than so many epochs
_EPOCHS = (8, 40)
_HELD_BACK_FOLDS = 5  # one of them is held back
_INNER_FOLDS = 4  # by which the penalty of a head's weights is chosen
_ENOUGH = 1_000  # galaxies, of which one of these folds is enough
_LAYER_DECAY = 0.8
# of a model folder's settings, those that say how images come to the encoder
_IMAGE_SETTINGS = {
    *("input_size", "crop_size", "resize_size", "channels", "rotate", "flip", "move", "zoom", "mean", "std"),
    *("preprocess", "fit", "fits"),
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What to learn, from which labels, starting where, and how.

    Attributes:
        catalog: a table with ``id_str``, ``file_loc`` and the labels.
        weights: where to start: a model folder, ``imagenet-lite0``, or whatever else
            :func:`zoobot.estimators.weights.read_weights` takes; from scratch when left out.
        targets: the columns with labels: one of classes, or some of numbers.
        task: ``classification``, ``regression`` or ``votes``; found from the labels when left out.
        schema: the decision tree, for ``votes``, whose answers are columns of the catalog.
        image_root: the folder that relative ``file_loc`` start from; the catalog's own when left out.
        fits: where FITS files have their fluxes, and their stretch; as the model folder has it when left out.
        encoder: one of timm's, or registered; that of the weights when left out.
        image_size: side that images are resized to; that of the model folder when left out, as are the next two,
            or 212.
        crop_size: side of what is cropped from that.
        resize_size: side of what the encoder sees.
        settings: others of the model, such as ``zoom=(0.9, 1.1)``: fields of
            :class:`~zoobot.estimators.define_model.ModelConfig`.
        layers: how many of the encoder's last layers learn: 0 for the head alone, which is quick; all when left
            out.
        layer_decay: each layer learns this much slower than the one after it; 0.8 when left out, 1 from scratch.
        freeze_batch_norm: keep the running statistics of batch normalisation; as long as there are weights to start
            from when left out.
        learning_rate: at its height.
        weight_decay: of what learns, save biases and normalisation.
        epochs: passes over the galaxies; as many as show 5,000 images, within 8 and 40, when left out.
        patience: epochs without a better loss on galaxies held back after which to stop; a third of the epochs, and at
            least 5, when left out.
        batch_size: galaxies a step.
        dropout_rate: before the last layer; the head alone is trained without.
        balance: give rare classes more weight, so that all classes count alike; the probabilities are then those of
            galaxies of which each class has as many.
        label_smoothing: of classes, such as 0.1.
        precision: as :class:`~zoobot.training.training_config.TrainConfig` has it, like the next one.
        accelerator: where to train.
        seed: of every random choice.

    Raises:
        SettingError: a value is outside what it may be.
    """

    catalog: str | Path
    weights: str | Path | None = None
    targets: Sequence[str] = ()
    task: str | None = None
    schema: Schema | None = None
    image_root: str | Path | None = None
    fits: FitsConfig | None = None
    encoder: str | None = None
    image_size: int | None = None
    crop_size: int | None = None
    resize_size: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    layers: int | None = None
    layer_decay: float | None = None
    freeze_batch_norm: bool | None = None
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    epochs: int | None = None
    patience: int | None = None
    batch_size: int = 32
    dropout_rate: float = 0.2
    balance: bool = False
    label_smoothing: float = 0.0
    precision: str = "auto"
    accelerator: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.targets, str):  # which is a sequence too, of letters
            raise SettingError(f"targets is {self.targets!r}; give a list of columns: [{self.targets!r}]")
        if (self.schema is None) != bool(self.targets):
            raise SettingError("give either the columns of labels (targets, --target) or a schema of votes (--schema)")
        if self.weights is None and (self.layers is not None or self.freeze_batch_norm):
            raise SettingError(
                "from scratch all layers must learn: leave layers and freeze_batch_norm out, or give weights"
            )
        for name in ("label_smoothing", "dropout_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be from 0 to below 1")
        self.to_train("unused", 100)  # which checks the rest

    def to_train(self, folder: str | Path, galaxies: int, **others: Any) -> TrainConfig:
        """The settings of a training on so many galaxies."""
        pretrained = self.weights is not None
        least, most = _EPOCHS
        epochs = min(most, max(least, math.ceil(_SEEN / galaxies))) if self.epochs is None else self.epochs
        return TrainConfig(
            log_dir=folder,
            epochs=epochs,
            patience=max(5, epochs // 3) if self.patience is None else self.patience,
            batch_size=min(self.batch_size, max(2, galaxies // 2)),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            layers=self.layers,
            layer_decay=(_LAYER_DECAY if pretrained else 1.0) if self.layer_decay is None else self.layer_decay,
            freeze_batch_norm=pretrained if self.freeze_batch_norm is None else self.freeze_batch_norm,
            precision=self.precision,
            accelerator=self.accelerator,
            devices=1,
            seed=self.seed,
            **others,
        )


@dataclass(frozen=True)
class Finetuned:
    """What :func:`finetune` did.

    Attributes:
        folder: the model folder.
        labels: what was learnt.
        trained: how many galaxies it learnt from.
        held_back: how many it was judged by.
        scores: on these; see :mod:`zoobot.stats.label_scores`, and ``loss``.
    """

    folder: Path
    labels: Labels
    trained: int
    held_back: int
    scores: dict[str, float]


def finetune(config: FinetuneConfig, save_dir: str | Path, *, overwrite: bool = False) -> Finetuned:
    """Train a model on the labels of a catalog, starting from pretrained weights, and save it as a model folder.

    A fifth of the galaxies, with its share of every class, is held back to stop by and to judge by. First the head is
    fitted alone, on what the encoder gives as it is; unless ``config.layers`` is 0, layers then learn too, starting
    from there (Kumar et al. 2022, arXiv:2202.10054).

    Raises:
        SettingError, CatalogError: settings or labels are not what they must be, or ``save_dir`` is ``weights``.
        ImageError: images cannot be read.
        ModelError: the weights cannot be had or do not fit.
        TrainingError: the folder is taken, or training fails.
    """
    folder = Path(save_dir)
    if config.weights is not None and folder.exists() and folder.resolve() == Path(config.weights).resolve():
        raise SettingError(f"save_dir is {folder}, whose weights are to start from; choose another folder")
    if not overwrite:
        clear_folder(folder, overwrite=False)  # says now that it is taken
    learner = Learner(config)
    clear_folder(folder, overwrite=overwrite)  # not before labels, images and weights are found good
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()  # not after the head was fitted: it cannot be written to
    held_back = assign_folds(learner.labels, min(_HELD_BACK_FOLDS, len(learner.labels)), config.seed) == 0
    train, test = np.flatnonzero(~held_back), np.flatnonzero(held_back)
    model = learner.train(train, test, folder)
    scores = learner.score(test, learner.predict(model, test))
    about = {name: value for name, value in asdict(config).items() if name not in ("schema", "fits")}
    about |= {"task": learner.labels.task, "scores": scores}
    if learner.fitted_head is not None:
        about["fitted_head"] = asdict(learner.fitted_head)
    update_metadata(folder, {"finetuning": about})
    (folder / LAST_NAME).unlink(missing_ok=True)  # no finetuning goes on after its end
    return Finetuned(folder, learner.labels, len(train), len(test), scores)


class Learner:
    """Images and labels in memory, of which models can be trained on any part.

    Args:
        config: how.

    Attributes:
        labels: of all galaxies.
        fitted_head: how the last training fitted its head before other layers learnt; None from scratch.

    Raises:
        SettingError, CatalogError, ImageError, ModelError: as :func:`finetune`.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
        fits = config.fits or find_fits(config.weights)
        label_cols = [] if config.schema is None else config.schema.label_cols
        catalog = read_catalog(config.catalog, label_cols, bands=fits.layout.bands, image_root=config.image_root)
        self.labels = read_labels(catalog, config.targets, task=config.task, schema=config.schema)
        model = self._make_model()
        images = ImageDataset(
            self.labels.galaxies,
            size=model.config.input_size,
            channels=model.config.channels,
            fit=model.config.fit,
            fits=fits,
            keep_faulty=True,
        )
        loaded = load_images(images, workers=min(8, count_cores()) if len(images) > _ENOUGH else 0)
        values = torch.from_numpy(self.labels.values)
        self._dataset = MemoryDataset(loaded.images, values, self.labels.label_cols, loaded.id_str, loaded.file_loc)
        self.fitted_head: FittedHead | None = None
        self._features: Tensor | None = None
        self._known = _find_answers(config.weights)

    def _make_model(self) -> Model:
        """A model that has learnt nothing of these labels yet."""
        config, labels = self.config, self.labels
        known = _find_model_settings(config.weights)
        sizes = {"input_size": config.image_size, "crop_size": config.crop_size, "resize_size": config.resize_size}
        settings = {**known, **{name: size for name, size in sizes.items() if size is not None}, **config.settings}
        if any(map(looks_like_fits, labels.galaxies["file_loc"])):
            settings["fits"] = (config.fits or find_fits(config.weights)).to_dict()
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return get_model(
                **{"input_size": _IMAGE_SIZE, **settings},
                schema=labels.schema,
                output_dim=len(labels.label_cols),
                targets=() if labels.schema else tuple(labels.label_cols),
                encoder=config.encoder,
                weights=config.weights,
                head=_HEADS[labels.task],
                dropout_rate=0.0 if config.layers == 0 else config.dropout_rate,
            )

    def train(self, train: Positions, test: Positions, folder: str | Path, *, show: bool = True) -> Model:
        """Learn from some galaxies, with others to stop by, and save the model.

        Args:
            train: positions among the labelled galaxies.
            test: other ones.
            folder: for the model.
            show: say how it goes.
        """
        config, values = self.config, self.labels.values[train]
        model = self._make_model()
        if isinstance(model.head, LinearHead):
            model.head.location.copy_(torch.from_numpy(values.mean(axis=0)))
            model.head.scale.copy_(torch.from_numpy(find_scale(values)))
        loss = make_loss(self.labels, train, balance=config.balance, smoothing=config.label_smoothing)
        if config.weights is not None:
            self._fit_head(model, train, loss)
        settings = config.to_train(folder, len(train), show_progress=show)
        datasets = self._dataset.take(train), self._dataset.take(test)
        if config.layers != 0:
            return train_estimator(model, settings, *datasets, loss=loss)
        data = {name: describe_dataset(dataset) for name, dataset in zip(("train", "test"), datasets, strict=True)}
        save_model(model.eval(), folder, {"data": data, "metrics": {}, "finished": True})
        return model

    def _fit_head(self, model: Model, train: Positions, loss: nn.Module) -> None:
        if self._features is None:
            on_gpu = self.config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
            self._features = represent_views(model.to("cuda" if on_gpu else "cpu"), self._dataset)
            model.cpu()
        chosen = self.labels.take(train)
        folds = assign_folds(chosen, min(_INNER_FOLDS, len(train)), self.config.seed)
        if len(train) > _ENOUGH:
            folds = np.where(folds == 0, 0, -1)
        rows = torch.as_tensor(train)
        values = torch.from_numpy(chosen.values)
        self.fitted_head = fit_head(
            model.head, self._features[rows], values, loss, torch.from_numpy(folds), self._known
        )

    def predict(self, model: Model, galaxies: Positions) -> NDArray[np.float32]:
        """What a model says of some galaxies, the mean over the eight views of each: (galaxies, outputs)."""
        model.eval()
        device = next(model.parameters()).device
        found = []
        with torch.inference_mode():
            for batch in make_loader(self._dataset.take(galaxies), 64):
                views = [model(view) for view in make_views(batch.images.to(device), "dihedral")]
                found.append(torch.stack(views).mean(dim=0).float().cpu().numpy())
        return np.concatenate(found)

    def score(self, galaxies: Positions, predicted: NDArray[np.float32]) -> dict[str, float]:
        """How well predictions of some galaxies fit their labels."""
        values, labels = self.labels.values[galaxies], self.labels
        if labels.task == "classification":
            return score_classes(values.argmax(axis=1), predicted)
        if labels.task == "regression":
            return score_numbers(values, predicted)
        loss = make_loss(labels, galaxies)
        losses = loss(torch.from_numpy(values), torch.from_numpy(predicted))
        return {"loss": float(losses.sum(dim=1).mean())}


def _find_answers(weights: str | Path | None) -> Tensor | None:
    """The last layer of a model folder: (answers, features)."""
    return load_model(str(weights)).head.linear.weight.detach() if _find_model_settings(weights) else None


def find_fits(weights: str | Path | None) -> FitsConfig:
    """How a model folder reads FITS files; as :class:`FitsConfig` has it, where there is none or it does not say.

    Raises:
        ModelError: its ``config.json`` makes no sense.
    """
    known = _find_model_settings(weights).get("fits")
    return FitsConfig() if known is None else FitsConfig.from_dict(known)


def _find_model_settings(weights: str | Path | None) -> dict[str, Any]:
    """What a model folder says of its images; nothing, where the weights are none."""
    if weights is None or not (Path(weights) / "config.json").is_file():
        return {}
    try:
        settings = load_config(weights)["model"]
    except ModelError:  # a folder from the hub; reading its weights will tell
        return {}
    try:
        settings = ModelConfig.from_dict(settings).to_dict()
    except (ZoobotError, TypeError) as error:
        raise ModelError(f"{Path(weights) / 'config.json'}: {error}") from error
    return {name: value for name, value in settings.items() if name in _IMAGE_SETTINGS}
