"""Every score of predictions as rows of one table, with bootstrap error bars, a baseline and the noise floor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoobot.errors import SettingError
from zoobot.schemas import Schema
from zoobot.stats.agreement import bin_by_confidence, sum_calibration_errors
from zoobot.stats.bootstrap import Weights, add_up, bootstrap_weights, divide
from zoobot.stats.calibration import Transform, share_inside, transform_votes
from zoobot.stats.classification import RocCurve, area_under_roc, classification_scores, roc_curve
from zoobot.stats.concentrations import (
    Floats,
    check_concentrations,
    check_credibility,
    round_votes,
    sum_questions,
)
from zoobot.stats.dirichlet import fraction_intervals
from zoobot.stats.galaxy_scores import compare_leading, count_volunteers, crps, find_leading, measure_fractions
from zoobot.stats.metrics import baseline_concentrations, baseline_fractions, check_answers, cumulative_square_errors
from zoobot.stats.noise_floor import draw_true_fractions, multinomial_loss
from zoobot.stats.predictive import log_predictive

__all__ = ["ALL_QUESTIONS", "ScoreConfig", "ScoreRow", "roc_curves", "tabulate_cumulative", "tabulate_scores"]

ALL_QUESTIONS = "all_questions"

_Columns: TypeAlias = dict[str, Floats]
_LEAST_DEFINED = 0.95  # share of resamples in which a figure must be defined to have an error bar
_AGREED_FRACTION = 0.8
_SOURCES = ("value", "baseline", "floor")
# which part of their predicted distribution votes are counted in, and what the mean share is multiplied by
_INTERVALS = {
    "coverage_80": (0.1, 0.9, 1),
    "coverage_90": (0.05, 0.95, 1),
    **{f"pit_{tenth + 1}": (tenth / 10, (tenth + 1) / 10, 10) for tenth in range(10)},
}
# measures that are sums over galaxies, divided by another, of subsets: the sum, and what it is divided by
_RATIOS = {
    ("loss", "all"): ("loss", "galaxies"),
    ("crps", "all"): ("crps", "whole_votes"),
    ("mean_absolute_error", "all"): ("mean_absolute_error", "votes"),
    ("rms_error", "all"): ("mean_square_error", "votes"),
    ("accuracy", "all"): ("correct", "galaxies"),
    ("accuracy", "agreed"): ("agreed_correct", "agreed_galaxies"),
    ("calibration_error", "all"): ("calibration_error", "galaxies"),
    ("width_90", "all"): ("width_90", "galaxies"),
    **{(measure, "all"): (measure, "whole_galaxies") for measure in _INTERVALS},
}
_COUNTED = {"votes": "galaxies", "whole_votes": "whole_galaxies"}


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
    """Of true fractions for the noise floor; 0 for none."""
    seed: int = 0
    """Of resamples and draws."""

    def __post_init__(self) -> None:
        """Check each setting."""
        check_credibility(self.credibility)
        if self.resamples < 0 or self.resamples == 1:
            raise SettingError(f"resamples: got {self.resamples}, expected at least 2, such as 200, or 0 for none.")
        if not 0 <= self.min_volunteers < np.inf:
            raise SettingError(f"min_volunteers: got {self.min_volunteers}, expected a number of at least 0.")
        if not 0 <= self.min_share_asked <= 1:
            raise SettingError(f"min_share_asked: got {self.min_share_asked}, expected a number from 0 to 1.")
        if self.draws < 0 or self.seed < 0:
            raise SettingError(f"draws, seed: got {self.draws} and {self.seed}, expected at least 0.")


@dataclass(frozen=True)
class ScoreRow:
    """One measure of one question (or of `ALL_QUESTIONS`) over a subset of the galaxies; None where there is none.

    Attributes:
        question: its name.
        answer: the answer's column, of measures of one answer; else empty.
        measure: what is measured.
        subset: ``all`` galaxies with votes, or of these the ``agreed``, the ``relevant``, the ``relevant_agreed``.
        galaxies: how many there are; of all questions, pairs of galaxy and question (of ``loss``, galaxies).
        value: of the predictions.
        lower: lower edge of its error bar.
        upper: upper edge.
        baseline: of the mean votes as predictions.
        floor: of a perfect model; for losses and errors the least that can be expected, for accuracies and the like the
            most, for coverages and PIT histograms just what they should be.
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
    *,
    widths: ArrayLike | None = None,
) -> list[ScoreRow]:
    """Score predictions against votes with error bars, beside a baseline and a perfect model.

    With the votes k of a galaxy for a question, N = Σk, and predicted fractions f, of ``all`` galaxies with votes:

    - ``loss``: mean of −log of the mixture of Dirichlet-multinomials (`log_predictive`); of all questions their sum;
    - ``crps``, ``mean_absolute_error``, ``rms_error``: `crps`, and errors of f against k/N; mean over answers, by N
      over galaxies;
    - ``accuracy``: how often the answer with the highest f has the most votes (ties as in `compare_leading`); also
      of the ``agreed`` galaxies, whose leading k/N is above 0.8;
    - ``calibration_error``: of the leading answers (`sum_calibration_errors`, by galaxies over questions);
    - ``coverage_80``, ``coverage_90``: share of the votes, made whole, in such central predictive intervals; and
      ``pit_1`` to ``pit_10``, the histogram of where they are, 1 if all is well (see `zoobot.stats.calibration`);
    - ``width_90``: mean width of the 90% credible intervals of fractions.

    Of the ``relevant`` galaxies (by the rule of Galaxy Zoo DECaLS, Walmsley et al. 2022, MNRAS 509, 3966, section 5.2:
    at least 34 volunteers, at least half of them asked the question), and of those of them that are agreed:
    `classification_scores` of the leading answers. Of relevant galaxies also ``auc``, the `area_under_roc` of each
    answer's fraction as a sign that the answer leads (where several tie, each does).

    Error bars are quantiles over bootstrap samples of the galaxies, the same for each question: the scatter that
    another sample of as many galaxies would give, with the same model. A calibration error is made larger by chance, in
    a bootstrap sample twice: its samples are moved so that their mean is the value. The baseline predicts the mean
    votes, or where concentrations are wanted the `baseline_concentrations`. The floor is explained in
    `zoobot.stats.noise_floor`.

    Args:
        votes: (galaxies, answers), finite and ≥ 0.
        fractions: (galaxies, answers), predicted; sum to one for each question.
        schema: the decision tree.
        concentrations: (galaxies, samples, answers) or (galaxies, answers); without them loss, CRPS, coverage and PIT
            have no value.
        reference_votes: (any galaxies, answers), votes to make the baseline from; the same ``votes`` if not given.
        config: the settings.
        widths: (galaxies, answers), of the predicted 90% credible intervals of fractions.

    Raises:
        SettingError: shapes do not fit, there are no galaxies, or a value is not what it should be.

    >>> from zoobot import schemas
    >>> rows = tabulate_scores([[30, 10], [5, 35]], [[0.7, 0.3], [0.4, 0.6]], schemas.load("gz_rings"))
    >>> [(row.measure, row.value) for row in rows if row.subset == "relevant" and "f1" in row.measure][:1]
    [('f1_macro', 1.0)]
    """
    settings = config or ScoreConfig()
    galaxies = _Galaxies(votes, fractions, schema, concentrations, reference_votes, widths, settings)
    weights = bootstrap_weights(len(galaxies.counts), settings.resamples, settings.seed)
    rows: list[ScoreRow] = []
    total: dict[str, _Columns] = {source: {} for source in _SOURCES}
    for index, question in enumerate(schema.questions):
        true = galaxies.draw_true(index)
        sums = galaxies.sums(index, true, weights)
        rows += _rows(question.name, sums, settings.credibility)
        rows += galaxies.areas(index, true, weights)
        for source, each in sums.items():
            _accumulate(total[source], each)
    voted = np.asarray(galaxies.counts.any(axis=1), dtype=np.float64)
    return [*rows, *_total_rows(total, add_up({"any": voted}, weights)["any"], settings.credibility)]


def tabulate_cumulative(
    votes: ArrayLike,
    fractions: ArrayLike,
    measured_cumulative: ArrayLike,
    schema: Schema,
    everyone_asked: Sequence[str] = (),
    reference_votes: ArrayLike | None = None,
    config: ScoreConfig | None = None,
) -> ScoreRow:
    """Score cumulative fractions of the whole tree by ``cumulative_rms_error``, the Kaggle Galaxy Challenge's figure.

    Arguments, error bars, baseline and floor as of `tabulate_scores`; ``measured_cumulative`` and ``everyone_asked`` as
    of `cumulative_square_errors`. The floor takes the true fractions from the votes, as if each question were answered
    on its own.

    Raises:
        SettingError: as both, or there are no galaxies.

    >>> from zoobot import schemas
    >>> tabulate_cumulative([[9, 1]], [[0.5, 0.5]], [[0.9, 0.1]], schemas.load("gz_rings")).value
    0.4
    """
    settings = config or ScoreConfig()
    counts, _ = _check_galaxies(votes, fractions, schema)
    baseline = baseline_fractions(counts if reference_votes is None else reference_votes, schema)

    def measure(predicted: ArrayLike) -> Floats:
        return cumulative_square_errors(predicted, measured_cumulative, schema, everyone_asked)

    draws = zip(*(_draw_true(counts, schema, index, settings) for index in range(len(schema.questions))), strict=True)
    floors = [measure(np.concatenate(parts, axis=1)).mean() for parts in draws]
    weights = bootstrap_weights(len(counts), settings.resamples, settings.seed)
    figures = {
        "value": np.sqrt(add_up({"error": measure(fractions)}, weights)["error"] / len(counts)),
        "baseline": np.sqrt(measure(baseline).mean(keepdims=True)),
        "floor": np.sqrt([np.mean(floors)]) if floors else _none(),
    }
    return _row((ALL_QUESTIONS, "", "cumulative_rms_error", "all"), len(counts), figures, settings.credibility)


def roc_curves(
    votes: ArrayLike, fractions: ArrayLike, schema: Schema, config: ScoreConfig | None = None
) -> dict[str, RocCurve]:
    """Curves of which ``auc`` in `tabulate_scores` is the area, by the answer's column.

    Answers that lead in none of the relevant galaxies, or in all, have none.

    Raises:
        SettingError: shapes do not fit, there are no galaxies, or a value is not what it should be.

    >>> from zoobot import schemas
    >>> curves = roc_curves([[30, 10], [5, 35]], [[0.7, 0.3], [0.4, 0.6]], schemas.load("gz_rings"))
    >>> curves["ring_yes"].true_positive_rate
    array([0., 1., 1.])
    """
    counts, predicted = _check_galaxies(votes, fractions, schema)
    relevant = _find_relevant(counts, schema, config or ScoreConfig())
    curves = {}
    for index, (first, last) in enumerate(schema.question_index_groups):
        leads = find_leading(counts[relevant[:, index], first : last + 1])
        for answer in range(first, last + 1):
            positive = leads[:, answer - first]
            if positive.any() and not positive.all():
                scores = predicted[relevant[:, index], answer]
                curves[schema.label_cols[answer]] = roc_curve(positive, scores)
    return curves


class _Galaxies:
    """Checked arguments, and what each galaxy scores, by question and source (predictions, baseline, floor)."""

    def __init__(
        self,
        votes: ArrayLike,
        fractions: ArrayLike,
        schema: Schema,
        concentrations: ArrayLike | None,
        reference_votes: ArrayLike | None,
        widths: ArrayLike | None,
        settings: ScoreConfig,
    ) -> None:
        self.counts, predicted = _check_galaxies(votes, fractions, schema)
        self.schema, self.groups, self.settings = schema, schema.question_index_groups, settings
        shape, reference = self.counts.shape, self.counts
        if reference_votes is not None:
            reference = check_answers("reference_votes", reference_votes, schema)
        self.relevant = _find_relevant(self.counts, schema, settings)
        self.whole = round_votes(self.counts, self.groups)
        self.fractions = {"value": predicted, "baseline": np.broadcast_to(baseline_fractions(reference, schema), shape)}
        constant = baseline_concentrations(reference, schema)
        self.posteriors = {"baseline": np.broadcast_to(constant, shape)}
        if concentrations is not None:
            self.posteriors["value"], _ = check_concentrations(concentrations, self.groups)
        lower, upper = fraction_intervals(constant[None], self.groups, 0.9)
        self.widths = {"baseline": np.broadcast_to(upper - lower, shape)}
        if widths is not None:
            self.widths["value"] = check_answers("widths", widths, schema)
        posteriors = self.posteriors.items()
        self.losses = {source: -log_predictive(self.counts, alpha, self.groups) for source, alpha in posteriors}
        self.crps = {source: crps(self.counts, alpha, self.groups) for source, alpha in posteriors}
        self.transforms = {source: transform_votes(self.whole, alpha, self.groups) for source, alpha in posteriors}

    def draw_true(self, index: int) -> list[Floats]:
        """What the true fractions of one question may be, each (galaxies, answers)."""
        return list(_draw_true(self.counts, self.schema, index, self.settings))

    def sums(self, index: int, true: list[Floats], weights: Weights) -> dict[str, _Columns]:
        """What is added up for one question: (resamples, ...) of the predictions, (1, ...) of the others."""
        first, last = self.groups[index]
        question = slice(first, last + 1)
        masks = self._masks(index)
        found = {"floor": self._floor_sums(index, true, masks)}
        for source, fractions in self.fractions.items():
            columns = _fraction_columns(self.counts[:, question], fractions[:, question], masks)
            if source in self.widths:
                columns["width_90"] = self.widths[source][:, question].mean(axis=1) * masks["galaxies"]
            if source in self.posteriors:
                columns["loss"] = self.losses[source][:, index]
                columns["crps"] = np.nan_to_num(self.crps[source][:, question].mean(axis=1)) * masks["whole_votes"]
                columns |= _calibration_columns(self.transforms[source].take(first, last))
            if source == "value":
                columns |= masks
            found[source] = _add_up(columns, weights if source == "value" else weights[:1])
        return found

    def areas(self, index: int, true: list[Floats], weights: Weights) -> Iterator[ScoreRow]:
        """Areas under the ROC curves of a question's answers."""
        first, last = self.groups[index]
        chosen = np.flatnonzero(self.relevant[:, index])
        leads = find_leading(self.counts[chosen, first : last + 1])
        for number, answer in enumerate(range(first, last + 1)):
            areas = area_under_roc(leads[:, number], self.fractions["value"][chosen, answer], weights[:, chosen])
            floors = [float(area_under_roc(leads[:, number], each[chosen, number])) for each in true]
            figures = {
                "value": areas,
                "baseline": np.where(np.isnan(areas[:1]), np.nan, 0.5),
                "floor": np.array([np.mean(floors)]) if floors else _none(),
            }
            names = (self.schema.question_names[index], self.schema.label_cols[answer], "auc", "relevant")
            yield _row(names, len(chosen), figures, self.settings.credibility)

    def _masks(self, index: int) -> _Columns:
        """Weights of the galaxies in means over them, each (galaxies,)."""
        first, last = self.groups[index]
        votes = self.counts[:, first : last + 1]
        totals, whole = votes.sum(axis=1), self.whole[:, first : last + 1].sum(axis=1)
        agreed = (totals > 0) & (votes.max(axis=1) > _AGREED_FRACTION * totals)
        masks = {
            "galaxies": totals > 0,
            "votes": totals,
            "whole_galaxies": whole > 0,
            "whole_votes": whole,
            "agreed_galaxies": agreed,
            "relevant_galaxies": self.relevant[:, index],
            "relevant_agreed_galaxies": agreed & self.relevant[:, index],
        }
        return {name: values.astype(np.float64) for name, values in masks.items()}

    def _floor_sums(self, index: int, true: list[Floats], masks: _Columns) -> _Columns:
        """Means over draws of what the true fractions would score, added up."""
        first, last = self.groups[index]
        votes, whole = self.counts[:, first : last + 1], self.whole[:, first : last + 1]
        generator = np.random.default_rng([self.settings.seed, 2, index])
        totals, once = masks["whole_votes"].astype(np.int64)[:, None], bootstrap_weights(len(votes), 0)
        mean: _Columns = {}
        for fractions in true:
            columns = _fraction_columns(votes, fractions, masks)
            columns["loss"] = multinomial_loss(votes, fractions)
            # the CRPS of a right prediction: half the mean difference of two independent numbers of votes
            others = generator.binomial(totals, fractions.clip(max=1))
            columns["crps"] = np.abs(others - whole).mean(axis=1) / 2
            for name, (low, high, scale) in _INTERVALS.items():
                columns[name] = masks["whole_galaxies"] * round((high - low) * scale, 9)
            for name, values in _add_up(columns, once).items():
                mean[name] = mean.get(name, 0) + values / len(true)
        return mean


def _check_galaxies(votes: ArrayLike, fractions: ArrayLike, schema: Schema) -> tuple[Floats, Floats]:
    counts, predicted = check_answers("votes", votes, schema), check_answers("fractions", fractions, schema)
    if len(predicted) != len(counts) or not len(counts):
        raise SettingError(
            f"votes, fractions: got {len(counts)} and {len(predicted)} galaxies, expected as many, at least 1."
        )
    return counts, predicted


def _find_relevant(counts: Floats, schema: Schema, config: ScoreConfig) -> NDArray[np.bool_]:
    """Whether enough volunteers saw a galaxy, and enough of them were asked each question: (galaxies, questions)."""
    totals, volunteers = sum_questions(counts, schema.question_index_groups), count_volunteers(counts, schema)[:, None]
    relevant: NDArray[np.bool_] = (totals >= config.min_share_asked * volunteers) & (totals > 0)
    return relevant & (volunteers >= config.min_volunteers)


def _draw_true(counts: Floats, schema: Schema, index: int, config: ScoreConfig) -> Iterator[Floats]:
    """What the true fractions of one question may be, each (galaxies, answers)."""
    first, last = schema.question_index_groups[index]
    generator = np.random.default_rng([config.seed, 1, index])
    return draw_true_fractions(counts[:, first : last + 1], config.draws, generator)


def _fraction_columns(votes: Floats, fractions: Floats, masks: _Columns) -> _Columns:
    """What predicted fractions of one question score, times the weights of each galaxy."""
    measured, cells = measure_fractions(votes, fractions), compare_leading(votes, fractions)
    return {
        "mean_absolute_error": measured["mean_absolute_error"] * masks["votes"],
        "mean_square_error": measured["mean_square_error"] * masks["votes"],
        "correct": measured["correct"] * masks["galaxies"],
        "agreed_correct": measured["correct"] * masks["agreed_galaxies"],
        "relevant": cells * masks["relevant_galaxies"][:, None, None],
        "relevant_agreed": cells * masks["relevant_agreed_galaxies"][:, None, None],
        "bins": bin_by_confidence(votes, fractions),
    }


def _calibration_columns(transform: Transform) -> _Columns:
    """How much of each galaxy's votes is where in their predicted distributions; 0 without votes."""
    return {
        name: np.nan_to_num(share_inside(transform, low, high).mean(axis=1) * scale)
        for name, (low, high, scale) in _INTERVALS.items()
    }


def _add_up(columns: _Columns, weights: Weights) -> _Columns:
    """Sums over the galaxies of each resample, of bins their calibration error."""
    sums = add_up(columns, weights)
    sums["calibration_error"] = sum_calibration_errors(sums.pop("bins"))
    return sums


def _accumulate(total: _Columns, sums: _Columns) -> None:
    """Add the sums of one question to those of all, of confusions how many are right and how many there are."""
    for name, values in sums.items():
        parts = {name: values}
        if values.ndim == 3:
            parts = {name: np.einsum("rii->r", values), f"{name}_pairs": values.sum(axis=(1, 2))}
        for part, numbers in parts.items():
            total[part] = total.get(part, 0) + numbers


def _rows(question: str, sums: dict[str, _Columns], credibility: float) -> Iterator[ScoreRow]:
    """Rows of one question."""
    yield from _ratio_rows(question, sums, sums["value"], credibility)
    for subset in ("relevant", "relevant_agreed"):
        number = sums["value"][subset][0].sum()
        scores = {source: classification_scores(each[subset]) for source, each in sums.items() if subset in each}
        for measure in scores["value"]:
            figures = {source: each[measure] for source, each in scores.items()}
            yield _row((question, "", measure, subset), number, figures, credibility)


def _total_rows(total: dict[str, _Columns], voted: Floats, credibility: float) -> Iterator[ScoreRow]:
    """Rows of all questions together."""
    yield from _ratio_rows(ALL_QUESTIONS, total, {**total["value"], "voted": voted}, credibility)
    for subset in ("relevant", "relevant_agreed"):
        number = total["value"][f"{subset}_pairs"]
        figures = {
            source: divide(each[subset], number[: len(each[subset])])
            for source, each in total.items()
            if subset in each
        }
        yield _row((ALL_QUESTIONS, "", "accuracy", subset), number[0], figures, credibility)


def _ratio_rows(question: str, sums: dict[str, _Columns], counts: _Columns, credibility: float) -> Iterator[ScoreRow]:
    """Rows of the measures that are a sum divided by another."""
    for (measure, subset), (name, weight) in _RATIOS.items():
        # of all questions the loss is a galaxy's, the others are means over pairs of galaxy and question
        over = "voted" if measure == "loss" and "voted" in counts else weight
        figures = {
            source: divide(each[name], counts[over][: len(each[name])]) for source, each in sums.items() if name in each
        }
        if measure == "rms_error":
            figures = {source: np.sqrt(values) for source, values in figures.items()}
        yield _row((question, "", measure, subset), counts[_COUNTED.get(over, over)][0], figures, credibility)


def _none() -> Floats:
    return np.full(1, np.nan)


def _row(names: tuple[str, str, str, str], galaxies: float, figures: dict[str, Floats], credibility: float) -> ScoreRow:
    """Row from the figures of the galaxies themselves (first) and of the resamples; those that lack are not known."""
    value, baseline, floor = (figures.get(source, _none())[0] for source in _SOURCES)
    every = figures.get("value", _none())[1:]
    resampled = every[np.isfinite(every)]
    if names[2] == "calibration_error" and len(resampled):
        resampled = (resampled - resampled.mean() + value).clip(min=0)
    edges = [(1 - credibility) / 2, (1 + credibility) / 2]
    enough = galaxies > 1 and len(resampled) >= _LEAST_DEFINED * len(every)
    lower, upper = np.quantile(resampled, edges) if enough and len(resampled) > 1 else (np.nan, np.nan)
    numbers = (float(number) if np.isfinite(number) else None for number in (value, lower, upper, baseline, floor))
    return ScoreRow(*names, round(galaxies), *numbers)
