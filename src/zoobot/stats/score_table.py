"""Every score of predictions as rows of one table, with bootstrap error bars, a baseline and the noise floor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from zoobot.errors import SettingError
from zoobot.schemas import Schema
from zoobot.stats.bootstrap import Weights, add_up, bootstrap_weights
from zoobot.stats.classification import area_under_roc, classification_scores
from zoobot.stats.concentrations import Floats, check_concentrations, check_credibility
from zoobot.stats.galaxy_scores import count_volunteers, crps, measure_fractions
from zoobot.stats.metrics import CONFIDENT_FRACTION, baseline_concentrations, baseline_fractions
from zoobot.stats.noise_floor import draw_true_fractions, multinomial_loss
from zoobot.stats.predictive import log_predictive

__all__ = ["ALL_QUESTIONS", "ScoreConfig", "ScoreRow", "tabulate_scores"]

ALL_QUESTIONS = "all_questions"

_Columns: TypeAlias = dict[str, Floats]
_LEAST_DEFINED = 0.95  # share of resamples in which a figure must be defined to have an error bar
_SOURCES = ("value", "baseline", "floor")
# measures over all galaxies with votes: the sum they are made of, and what it is divided by
_RATIOS = {
    "loss": ("loss", "galaxies"),
    "crps": ("crps", "whole_votes"),
    "mean_absolute_error": ("mean_absolute_error", "votes"),
    "rms_error": ("mean_square_error", "votes"),
    "accuracy": ("correct", "galaxies"),
    "confident_accuracy": ("confident_correct", "confident_galaxies"),
}


@dataclass(frozen=True)
class ScoreConfig:
    """How scores are tabulated.

    Raises:
        SettingError: a setting is outside what it may be.
    """

    resamples: int = 200
    """Bootstrap samples of galaxies for the error bars; 0 for none."""
    credibility: float = 0.9
    """Probability between ``lower`` and ``upper``."""
    min_volunteers: float = 34
    """Relevant galaxies were seen by at least so many volunteers, so that the typical answer is well measured."""
    min_share_asked: float = 0.5
    """For a question, relevant galaxies are those of which at least this share of them was asked it."""
    draws: int = 10
    """Of true fractions for the noise floor."""
    seed: int = 0
    """Of resamples and draws."""

    def __post_init__(self) -> None:
        """Check each setting."""
        check_credibility(self.credibility)
        if self.resamples < 0 or self.resamples == 1:
            raise SettingError(f"resamples: got {self.resamples}, expected at least 2, such as 200, or 0 for none.")
        if not self.min_volunteers >= 0:
            raise SettingError(f"min_volunteers: got {self.min_volunteers}, expected at least 0.")
        if not 0 <= self.min_share_asked <= 1:
            raise SettingError(f"min_share_asked: got {self.min_share_asked}, expected a number from 0 to 1.")
        if self.draws < 1 or self.seed < 0:
            raise SettingError(f"draws, seed: got {self.draws} and {self.seed}, expected at least 1 and 0.")


@dataclass(frozen=True)
class ScoreRow:
    """One measure of one question (or of `ALL_QUESTIONS`) over a subset of the galaxies; None where there is none.

    Attributes:
        question: its name.
        answer: the answer's column, of measures of one answer; else empty.
        measure: what is measured.
        subset: ``all`` galaxies with votes, the ``relevant`` or the ``confident`` of these.
        galaxies: how many there are; of all questions, pairs of galaxy and question (of ``loss``, galaxies).
        value: of the predictions.
        lower: lower edge of its error bar.
        upper: upper edge.
        baseline: of the mean votes as predictions.
        floor: of a perfect model; for losses and errors the least that can be expected, for the others the most.
    """

    question: str
    answer: str
    measure: str
    subset: str
    galaxies: int
    value: float | None
    lower: float | None
    upper: float | None
    baseline: float | None
    floor: float | None


def tabulate_scores(
    votes: ArrayLike,
    fractions: ArrayLike,
    schema: Schema,
    concentrations: ArrayLike | None = None,
    reference_votes: ArrayLike | None = None,
    config: ScoreConfig | None = None,
) -> list[ScoreRow]:
    """Score predictions against votes with error bars, beside a baseline and a perfect model.

    Of ``all`` galaxies with votes for a question: ``loss``, ``mean_absolute_error``, ``rms_error``, ``accuracy`` and
    ``confident_accuracy`` are those of `evaluate_predictions`; ``crps`` is the `crps`, mean over answers, by votes over
    galaxies. Of the ``relevant`` galaxies (by the rule of Galaxy Zoo DECaLS, Walmsley et al. 2022, MNRAS 509, 3966,
    section 5.2: at least 34 volunteers, at least half of them asked the question), and of the ``confident`` ones of
    these, whose leading vote fraction is above 0.8: `classification_scores` of the leading answers. Of relevant
    galaxies also ``auc``, the `area_under_roc` of each answer's fraction as a sign that the answer leads.

    Error bars are quantiles over bootstrap samples of the galaxies, the same for each question: the scatter that
    another sample of as many galaxies would give, with the same model. The baseline predicts the mean votes, or for
    ``loss`` and ``crps`` the `baseline_concentrations`. The floor is explained in `zoobot.stats.noise_floor`.

    Args:
        votes: (galaxies, answers), finite and ≥ 0.
        fractions: (galaxies, answers), predicted; sum to one for each question.
        schema: the decision tree.
        concentrations: (galaxies, samples, answers) or (galaxies, answers); without them loss and CRPS have no value.
        reference_votes: (any galaxies, answers), votes to make the baseline from; the same ``votes`` if not given.
        config: the settings.

    Raises:
        SettingError: shapes do not fit, there are no galaxies, or a value is not what it should be.

    >>> from zoobot import schemas
    >>> rows = tabulate_scores([[30, 10], [5, 35]], [[0.7, 0.3], [0.4, 0.6]], schemas.load("gz_rings"))
    >>> [(row.measure, row.value) for row in rows if row.subset == "relevant" and "f1" in row.measure][:1]
    [('f1_macro', 1.0)]
    """
    settings = config or ScoreConfig()
    counts, predicted = np.asarray(votes, dtype=np.float64), np.asarray(fractions, dtype=np.float64)
    if predicted.shape != counts.shape or predicted.ndim != 2 or not len(predicted):
        raise SettingError(
            f"votes, fractions: got shapes {counts.shape} and {predicted.shape}, expected (galaxies, answers) of both, "
            "with at least one galaxy."
        )
    if not np.isfinite(predicted).all():
        raise SettingError("fractions: got NaN or an infinite value, expected numbers from 0 to 1.")
    reference = counts if reference_votes is None else np.asarray(reference_votes, dtype=np.float64)
    galaxies = _Galaxies(counts, predicted, schema, concentrations, reference, settings)
    weights = bootstrap_weights(len(counts), settings.resamples, settings.seed)
    rows: list[ScoreRow] = []
    total: dict[str, _Columns] = {}
    for index, question in enumerate(schema.questions):
        true = galaxies.draw_true(index)
        sums = {
            source: add_up(columns, weights if source == "value" else weights[:1])
            for source, columns in galaxies.columns(index, true).items()
        }
        rows += _rows(question.name, sums, settings.credibility)
        rows += galaxies.areas(index, true[0], weights)
        for source, each in sums.items():
            _accumulate(total.setdefault(source, {}), each)
    voted = add_up({"any": np.asarray(counts.any(axis=1), dtype=np.float64)}, weights)["any"]
    return [*rows, *_total_rows(total, voted, settings.credibility)]


class _Galaxies:
    """Checked arguments, and what each galaxy scores, by question and source (predictions, baseline, floor)."""

    def __init__(
        self,
        counts: Floats,
        predicted: Floats,
        schema: Schema,
        concentrations: ArrayLike | None,
        reference: Floats,
        settings: ScoreConfig,
    ) -> None:
        self.counts, self.groups, self.settings = counts, schema.question_index_groups, settings
        self.label_cols, self.names = schema.label_cols, schema.question_names
        self.volunteers = count_volunteers(counts, schema)
        constant = np.broadcast_to(baseline_concentrations(reference, schema), counts.shape)
        self.fractions = {
            "value": predicted,
            "baseline": np.broadcast_to(baseline_fractions(reference, schema), counts.shape),
        }
        self.losses = {"baseline": -log_predictive(counts, constant, self.groups)}
        self.crps = {"baseline": crps(counts, constant, self.groups)}
        if concentrations is not None:
            alpha, _ = check_concentrations(concentrations, self.groups)
            self.losses["value"] = -log_predictive(counts, alpha, self.groups)
            self.crps["value"] = crps(counts, alpha, self.groups)

    def draw_true(self, index: int) -> list[Floats]:
        """What the true fractions of one question may be, each (galaxies, answers)."""
        first, last = self.groups[index]
        generator = np.random.default_rng([self.settings.seed, 1, index])
        return list(draw_true_fractions(self.counts[:, first : last + 1], self.settings.draws, generator))

    def columns(self, index: int, true: list[Floats]) -> dict[str, _Columns]:
        """What is to be added up for one question: (galaxies,), or (galaxies, answers, answers) of confusions."""
        first, last = self.groups[index]
        votes = self.counts[:, first : last + 1]
        masks = self._masks(index)
        columns: dict[str, _Columns] = {}
        for source, fractions in self.fractions.items():
            columns[source] = _fraction_columns(votes, fractions[:, first : last + 1], masks)
            if source in self.crps:
                score = self.crps[source][:, first : last + 1].mean(axis=1)
                columns[source]["crps"] = masks["whole_votes"] * np.nan_to_num(score)
        columns["floor"] = self._floor_columns(index, true, masks)
        for source, losses in self.losses.items():
            columns[source]["loss"] = losses[:, index]
        columns["value"].update(masks)
        return columns

    def areas(self, index: int, true: Floats, weights: Weights) -> Iterator[ScoreRow]:
        """Areas under the ROC curves of a question's answers."""
        first, last = self.groups[index]
        chosen = np.flatnonzero(self._masks(index)["relevant_galaxies"])
        votes = self.counts[chosen, first : last + 1]
        perfect = true[chosen]
        for answer in range(first, last + 1):
            leads = votes[:, answer - first] == votes.max(axis=1, initial=0)
            areas = area_under_roc(leads, self.fractions["value"][chosen, answer], weights[:, chosen])
            floor = float(area_under_roc(leads, perfect[:, answer - first]))
            figures = _figures(areas, np.array([0.5 if areas[0] == areas[0] else np.nan]), np.array([floor]))
            yield _row(
                (self.names[index], self.label_cols[answer], "auc", "relevant"),
                len(chosen),
                figures,
                self.settings.credibility,
            )

    def _masks(self, index: int) -> _Columns:
        """Weights of the galaxies in means over them, each (galaxies,)."""
        first, last = self.groups[index]
        votes = self.counts[:, first : last + 1]
        totals = votes.sum(axis=1)
        asked = (totals >= self.settings.min_share_asked * self.volunteers) & (totals > 0)
        relevant = asked & (self.volunteers >= self.settings.min_volunteers)
        confident = (totals > 0) & (votes.max(axis=1) > CONFIDENT_FRACTION * totals)
        masks = {
            "galaxies": totals > 0,
            "votes": totals,
            "whole_votes": np.rint(totals),
            "confident_galaxies": confident,
            "relevant_galaxies": relevant,
            "confident_relevant_galaxies": confident & relevant,
        }
        return {name: values.astype(np.float64) for name, values in masks.items()}

    def _floor_columns(self, index: int, true: list[Floats], masks: _Columns) -> _Columns:
        """Means over draws of what the true fractions would score."""
        first, last = self.groups[index]
        votes = self.counts[:, first : last + 1]
        generator = np.random.default_rng([self.settings.seed, 2, index])
        whole, totals = np.rint(votes), masks["whole_votes"].astype(np.int64)[:, None]
        mean: _Columns = {}
        for fractions in true:
            columns = _fraction_columns(votes, fractions, masks)
            columns["loss"] = multinomial_loss(votes, fractions)
            # the CRPS of a right prediction: half the mean difference of two independent numbers of votes
            others = generator.binomial(totals, fractions.clip(max=1))
            columns["crps"] = np.abs(others - whole).mean(axis=1) / 2
            for name, values in columns.items():
                part = values / len(true)
                mean[name] = mean[name] + part if name in mean else part
        return mean


def _fraction_columns(votes: Floats, fractions: Floats, masks: _Columns) -> _Columns:
    """What predicted fractions of one question score, times the weights of each galaxy."""
    answers = votes.shape[1]
    measured = {name: values[:, 0] for name, values in measure_fractions(votes, fractions, [(0, answers - 1)]).items()}
    leading, most = fractions.argmax(axis=1), votes.argmax(axis=1)
    true = np.where(measured["correct"] > 0, leading, most)  # of answers that tie, the predicted one
    confusion = np.zeros((len(votes), answers, answers))
    confusion[np.arange(len(votes)), true, leading] = 1
    return {
        "mean_absolute_error": measured["mean_absolute_error"] * masks["votes"],
        "mean_square_error": measured["mean_square_error"] * masks["votes"],
        "correct": measured["correct"] * masks["galaxies"],
        "confident_correct": measured["correct"] * masks["confident_galaxies"],
        "relevant": confusion * masks["relevant_galaxies"][:, None, None],
        "confident": confusion * masks["confident_relevant_galaxies"][:, None, None],
    }


def _accumulate(total: _Columns, sums: _Columns) -> None:
    """Add the sums of one question to those of all, of confusions how many are right and how many there are."""
    for name, values in sums.items():
        parts = {name: values}
        if values.ndim == 3:
            parts = {name: np.einsum("rii->r", values), f"{name}_pairs": values.sum(axis=(1, 2))}
        for part, numbers in parts.items():
            total[part] = total[part] + numbers if part in total else numbers


def _rows(question: str, sums: dict[str, _Columns], credibility: float) -> Iterator[ScoreRow]:
    """Rows of one question."""
    counts = sums["value"]
    for measure in _RATIOS:
        figures = _figures(*(_ratio(measure, sums[source], counts) for source in _SOURCES))
        number = counts["confident_galaxies" if measure == "confident_accuracy" else "galaxies"][0]
        yield _row((question, "", measure, "all"), number, figures, credibility)
    for subset in ("relevant", "confident"):
        scores = {source: classification_scores(sums[source][subset]) for source in _SOURCES}
        for measure in scores["value"]:
            figures = _figures(*(scores[source][measure] for source in _SOURCES))
            yield _row((question, "", measure, subset), counts[subset][0].sum(), figures, credibility)


def _total_rows(total: dict[str, _Columns], voted: Floats, credibility: float) -> Iterator[ScoreRow]:
    """Rows of all questions together."""
    counts = total["value"]
    for measure in _RATIOS:
        known = {**counts, "galaxies": voted} if measure == "loss" else counts
        figures = _figures(*(_ratio(measure, total[source], known) for source in _SOURCES))
        number = known["confident_galaxies" if measure == "confident_accuracy" else "galaxies"][0]
        yield _row((ALL_QUESTIONS, "", measure, "all"), number, figures, credibility)
    for subset in ("relevant", "confident"):
        number = counts[f"{subset}_pairs"]
        figures = _figures(*(_divide(total[source][subset], number) for source in _SOURCES))
        yield _row((ALL_QUESTIONS, "", "accuracy", subset), number[0], figures, credibility)


def _ratio(measure: str, sums: _Columns, counts: _Columns) -> Floats:
    name, weight = _RATIOS[measure]
    values = _divide(sums.get(name, np.full(1, np.nan)), counts[weight])
    return np.sqrt(values) if measure == "rms_error" else values


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient of as many as there are of the numerator, NaN where there is nothing to divide by."""
    denominator = denominator[: len(numerator)]
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _figures(value: Floats, baseline: Floats, floor: Floats) -> dict[str, Floats]:
    return {"value": value, "baseline": baseline, "floor": floor}


def _row(names: tuple[str, str, str, str], galaxies: float, figures: dict[str, Floats], credibility: float) -> ScoreRow:
    """Row from the figures of the galaxies themselves (first) and of the resamples."""
    resampled = figures["value"][1:]
    resampled = resampled[np.isfinite(resampled)]
    edges = [(1 - credibility) / 2, (1 + credibility) / 2]
    enough = galaxies > 1 and len(resampled) >= _LEAST_DEFINED * len(figures["value"][1:])
    lower, upper = np.quantile(resampled, edges) if enough and len(resampled) > 1 else (np.nan, np.nan)
    value, baseline, floor = (figures[source][0] for source in _SOURCES)
    numbers = (float(number) if np.isfinite(number) else None for number in (value, lower, upper, baseline, floor))
    return ScoreRow(*names, round(galaxies), *numbers)
