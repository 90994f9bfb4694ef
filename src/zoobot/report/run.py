"""Predictions and votes of the same galaxies, and what is known of the model: what a report is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoobot.errors import ModelError, ZoobotError
from zoobot.estimators import checkpoint
from zoobot.estimators.define_model import ModelConfig
from zoobot.predictions.catalogue import read_concentrations, read_fractions, read_intervals
from zoobot.predictions.evaluate import Matched, match_votes
from zoobot.report.galaxies import GalaxyPosterior, share_asked
from zoobot.schemas import Schema
from zoobot.stats.concentrations import Floats, sum_questions

__all__ = ["Run", "read_run"]


@dataclass(frozen=True)
class Run:
    """Predictions and votes of the same galaxies, in one order, and what is known of the model.

    Attributes:
        matched: the tables that they come from.
        catalog: path of the votes; images may lie beside it.
        fractions: (galaxies, answers), expected.
        lower: (galaxies, answers), lower edges of their credible intervals.
        upper: (galaxies, answers), upper edges.
        concentrations: (galaxies, samples, answers), if the predictions hold them.
        asked: (galaxies, questions), share of the volunteers who were asked.
        config: the model's, if its folder is given.
    """

    matched: Matched
    catalog: Path
    fractions: Floats
    lower: Floats
    upper: Floats
    concentrations: Floats | None
    asked: Floats
    config: Mapping[str, Any] | None

    @property
    def schema(self) -> Schema:
        """The decision tree."""
        return self.matched.schema

    @property
    def votes(self) -> Floats:
        """Counts, (galaxies, answers)."""
        return self.matched.votes

    @property
    def volunteers(self) -> Floats:
        """Most votes for any question, (galaxies,)."""
        most: Floats = sum_questions(self.votes, self.schema.question_index_groups).max(axis=1)
        return most

    @property
    def trained_on(self) -> int | None:
        """How many galaxies the model was trained on, if that is known."""
        found: Any = self.config["metadata"] if self.config else None
        for name in ("data", "train", "galaxies"):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, int) else None

    def posterior(self, galaxy: int) -> GalaxyPosterior:
        """What is predicted of one galaxy, by row, with its votes."""
        samples = None if self.concentrations is None else self.concentrations[galaxy]
        return GalaxyPosterior(
            self.fractions[galaxy], self.lower[galaxy], self.upper[galaxy], samples, self.votes[galaxy]
        )


def read_run(
    predictions: str | Path, catalog: str | Path, checkpoint_dir: str | Path | None = None, schema: Schema | None = None
) -> Run:
    """Read predictions, the votes of the same galaxies and the config of the model, whose schema it is unless given.

    Raises:
        PredictionError: the tables do not fit each other or the schema, or there are no votes.
        CatalogError: a table cannot be read or has faults.
        ModelError: the model folder cannot be read.
    """
    config = None if checkpoint_dir is None else checkpoint.load_config(checkpoint_dir)
    if schema is None and config is not None and config["schema"] is not None:
        schema = Schema.from_dict(config["schema"], f"the decision tree of {checkpoint_dir}")
    if config is not None:
        _check_config(config, checkpoint_dir)
    matched = match_votes(predictions, catalog, schema)
    lower, upper = read_intervals(matched.predicted, matched.schema)
    return Run(
        matched=matched,
        catalog=Path(catalog),
        fractions=read_fractions(matched.predicted, matched.schema),
        lower=lower,
        upper=upper,
        concentrations=read_concentrations(matched.predicted, matched.schema),
        asked=share_asked(matched.votes, matched.schema),
        config=config,
    )


def _check_config(config: Mapping[str, Any], folder: str | Path | None) -> None:
    """Raise a ModelError where a model's config lacks what a page says of it."""
    try:
        ModelConfig.from_dict(config["model"])
    except (ZoobotError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}/config.json: {error}; report without --checkpoint-dir") from error
    if not isinstance(config["versions"], Mapping):
        raise ModelError(f"{folder}/config.json: versions is no table of names; report without --checkpoint-dir")
