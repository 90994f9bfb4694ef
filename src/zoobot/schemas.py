"""Decision trees: the questions volunteers are asked, the answers, and which answer leads to which question.

A tree is a TOML file, and the same content as JSON in a model's config or a shard manifest::

    description = "What the tree is for, in one line"

    [[question]]
    name = "smooth-or-featured"
    answers = ["smooth", "featured"]

    [[question]]
    name = "disk-edge-on"
    answers = ["yes", "no"]
    asked_after = ["smooth-or-featured_featured"]

``asked_after`` holds label columns (``question_answer``), any one of which leads to the question; without it
the question is asked of everyone. No volunteer may be able to give two of them to different questions: then
their chances add up. Questions may come in any order, and so will the label columns.
The name of the tree is the file's, without ``.toml``, unless the file has a ``name`` of its own.
"""

import difflib
import graphlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoobot.errors import SchemaError, SettingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Answer", "Question", "Schema", "available", "join", "load"]

_TREES = Path(__file__).with_name("trees")

# Far above any real tree: a file from a stranger must not cost minutes or gigabytes before it is refused.
_MAX_BYTES = 1_000_000
_MAX_ANSWERS = 1_000
_MAX_TEXT = 300
_MAX_FAULTS = 30

_Floats: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Answer:
    """One answer to a question.

    >>> Answer("bar", "yes").label_col
    'bar_yes'
    """

    question: str
    text: str

    @property
    def label_col(self) -> str:
        """Name of the column with the votes for this answer."""
        return f"{self.question}_{self.text}"


@dataclass(frozen=True)
class Question:
    """A question, its answers in order, and the label columns that lead to it (none: asked of everyone).

    Raises:
        SchemaError: an answer belongs to another question.
    """

    name: str
    answers: tuple[Answer, ...]
    asked_after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check it."""
        strangers = [answer.label_col for answer in self.answers if answer.question != self.name]
        if strangers:
            raise SchemaError(
                f"question {_show(self.name)}: its answers {_show(strangers)} belong to another question"
            )


@dataclass(frozen=True)
class Schema:
    """A decision tree: questions and answers in the order of the label columns.

    Raises:
        SchemaError: the tree makes no sense; the message lists every fault.

    >>> schema = load("gz2")
    >>> schema.label_cols[:2]
    ['smooth-or-featured-gz2_smooth', 'smooth-or-featured-gz2_featured-or-disk']
    >>> schema.question_index_groups[:3]
    [(0, 2), (3, 4), (5, 6)]
    >>> fractions = [0.2, 0.8, 0.0, 0.25, 0.75] + [0.5] * 25
    >>> print(schema.joint_p(fractions, "has-spiral-arms-gz2").round(3))  # featured, not edge-on: 0.8 · 0.75
    0.6
    """

    name: str
    questions: tuple[Question, ...]
    description: str = ""

    def __post_init__(self) -> None:
        """Check it."""
        _raise_faults(_find_faults(self.to_dict()), f"decision tree {_show(self.name)}")
        _raise_faults(self._find_overlaps(), f"decision tree {_show(self.name)}")

    @property
    def answers(self) -> list[Answer]:
        """Every answer, in the order of the label columns."""
        return [answer for question in self.questions for answer in question.answers]

    @property
    def label_cols(self) -> list[str]:
        """Names of the columns of votes, ``question_answer``."""
        return [answer.label_col for answer in self.answers]

    @property
    def question_names(self) -> list[str]:
        """Names of the questions."""
        return [question.name for question in self.questions]

    @property
    def question_index_groups(self) -> list[tuple[int, int]]:
        """Per question the first and last index of its answers among the label columns, both inclusive."""
        edges = list(itertools.accumulate((len(q.answers) for q in self.questions), initial=0))
        return [(first, after - 1) for first, after in itertools.pairwise(edges)]

    def question(self, name: str) -> Question:
        """Find a question by its name.

        Raises:
            SchemaError: there is no such question.
        """
        names = self.question_names
        if name not in names:
            raise SchemaError(
                f"question {_show(name)} is not in decision tree {_show(self.name)}{_suggest(name, names)}; "
                f"its questions: {', '.join(names)}"
            )
        return self.questions[names.index(name)]

    def proportion_asked(self, fractions: ArrayLike) -> _Floats:
        """Compute the probability that a volunteer is asked each question.

        The sum over the answers that lead to it: ``p(question) = Σ p(parent) · fraction(answer of parent)``.
        It is exact, as no volunteer gives two of them.

        Args:
            fractions: vote fractions, 0 to 1, (..., answers), each among those who were asked its question.

        Returns:
            (..., questions), 1 for questions asked of everyone; dtype as the fractions (integers: float64).
            Zero times NaN is zero: the NaN fractions of a question that nobody reaches have no effect.
            Any other NaN makes NaN of what depends on it.

        Raises:
            SettingError: fractions of another shape or kind, or outside 0 to 1.
        """
        floats = self._check_fractions(fractions)
        asked = np.ones((*floats.shape[:-1], len(self.questions)), floats.dtype)
        for index, parents in self._parents.items():
            if parents:
                asked[..., index] = sum(
                    _multiply(asked[..., parent], floats[..., columns].sum(axis=-1))
                    for parent, columns in parents.items()
                )
        return asked

    def joint_p(self, fractions: ArrayLike, question_name: str) -> _Floats:
        """Compute the probability that a volunteer is asked one question: its column of `proportion_asked`.

        Raises:
            SchemaError: there is no such question.
            SettingError: as `proportion_asked`.
        """
        index = self.questions.index(self.question(question_name))
        return np.asarray(self.proportion_asked(fractions)[..., index])

    def cumulative_fractions(self, fractions: ArrayLike) -> _Floats:
        """Compute the fraction of all volunteers who give each answer, ``fraction · p(question)``.

        Shapes, dtype, NaN policy and errors as `proportion_asked`; an answer that nobody reaches has 0.

        >>> load("gz_rings").cumulative_fractions([0.25, 0.75])
        array([0.25, 0.75])
        """
        floats = self._check_fractions(fractions)
        sizes = [len(question.answers) for question in self.questions]
        return _multiply(np.repeat(self.proportion_asked(floats), sizes, axis=-1), floats)

    def draw(self) -> str:
        """Draw the tree as text; a question that follows several answers is drawn once in full.

        >>> print(load("gz_rings").draw())
        ring
        ├── yes
        └── no
        """
        lines: list[str] = []
        drawn: set[str] = set()
        for question in self.questions:
            if not question.asked_after:
                lines.append(question.name)
                self._draw_answers(question, "", lines, drawn)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give the content of the tree's TOML file as plain dicts, lists and strings, ready for JSON."""
        questions = [
            {"name": q.name, "answers": [a.text for a in q.answers], "asked_after": list(q.asked_after)}
            for q in self.questions
        ]
        return {"name": self.name, "description": self.description, "question": questions}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Schema":
        """Make a schema from what `to_dict` gave, checked as strictly as a file: it may come from strangers.

        Raises:
            SchemaError: the message lists every fault.

        >>> Schema.from_dict(load("gz2").to_dict()) == load("gz2")
        True
        """
        return _build(content, "decision tree")

    def _draw_answers(self, question: Question, indent: str, lines: list[str], drawn: set[str]) -> None:
        drawn.add(question.name)
        for answer in question.answers:
            branch, space = ("└──", "    ") if answer is question.answers[-1] else ("├──", "│   ")
            lines.append(f"{indent}{branch} {answer.text}")
            inner = indent + space
            following = [q for q in self.questions if answer.label_col in q.asked_after]
            for follower in following:
                arrow, space = ("└─▶", "    ") if follower is following[-1] else ("├─▶", "│   ")
                is_drawn = follower.name in drawn
                lines.append(f"{inner}{arrow} {follower.name}{' (see above)' if is_drawn else ''}")
                if not is_drawn:
                    self._draw_answers(follower, inner + space, lines, drawn)

    def _check_fractions(self, fractions: ArrayLike) -> _Floats:
        array = np.asarray(fractions)
        size = len(self.answers)
        if array.dtype.kind not in "fiub" or array.shape[-1:] != (size,):
            raise SettingError(
                f"fractions are {array.dtype} of shape {array.shape}; expected numbers of shape (..., {size}): "
                f"vote fractions of the {size} answers of {_show(self.name)}"
            )
        floats: _Floats = array if array.dtype.kind == "f" else array.astype(np.float64)
        low = np.fmin.reduce(floats, axis=None, initial=0)
        high = np.fmax.reduce(floats, axis=None, initial=0)
        if low < -1e-3 or high > 1 + 1e-3:  # rounding may carry a fraction a little past its limits
            raise SettingError(
                f"fractions go from {low:g} to {high:g}; expected 0 to 1; divide votes by their total"
            )
        return floats

    @cached_property
    def _parents(self) -> dict[int, dict[int, list[int]]]:
        """Per question, in asking order: the questions that lead to it, each with the label columns that do."""
        places = {name: index for index, name in enumerate(self.question_names)}
        leading = {answer.label_col: (places[answer.question], i) for i, answer in enumerate(self.answers)}
        parents: dict[int, dict[int, list[int]]] = {index: {} for index in places.values()}
        for index, question in enumerate(self.questions):
            for parent, column in map(leading.__getitem__, question.asked_after):
                parents[index].setdefault(parent, []).append(column)
        return {index: parents[index] for index in graphlib.TopologicalSorter(parents).static_order()}

    def _find_overlaps(self) -> Iterator[str]:
        """Find questions that one volunteer may be led to twice: adding chances would count that one double.

        Whoever is asked a question gave one of the ``needed`` answers to each of some questions before it.
        Two ways to a question exclude each other if they need different answers to the same question.
        """
        labels = self.label_cols
        needed: dict[int, dict[int, set[int]]] = {}
        for index, parents in self._parents.items():
            ways = [{**needed[parent], parent: set(columns)} for parent, columns in parents.items()]
            common = set.intersection(*map(set, ways)) if ways else set()
            needed[index] = {earlier: set().union(*(way[earlier] for way in ways)) for earlier in common}
            for (one, first), (other, second) in itertools.combinations(
                zip(parents.values(), ways, strict=True), 2
            ):
                if not any(first[earlier].isdisjoint(second[earlier]) for earlier in first.keys() & second):
                    yield (
                        f"question {_show(self.questions[index].name)} is asked after {_show(labels[one[0]])} and "
                        f"{_show(labels[other[0]])}, and a volunteer may give both; expected answers that exclude "
                        "each other: of one question, or on different branches"
                    )


def available() -> list[str]:
    """List the names of the built-in trees.

    >>> "gz2" in available()
    True
    """
    return sorted(path.stem for path in _TREES.glob("*.toml"))


def load(name_or_path: str | Path) -> Schema:
    """Load a built-in tree by name, or your own from the path of its TOML file.

    A string that ends in ``.toml`` or holds a path separator is a path, as is any ``Path``.

    Raises:
        SchemaError: there is no such tree, or it cannot be read, or it has faults (all listed).

    >>> len(load("gz_decals").label_cols)
    34
    """
    given = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or given.endswith(".toml") or "/" in given or "\\" in given
    if not is_path and given not in available():
        raise SchemaError(
            f"decision tree {_show(given)} is not built in{_suggest(given, available())}; "
            f"built in: {', '.join(available())}; for your own give the path of its .toml file"
        )
    path = Path(name_or_path) if is_path else _TREES / f"{given}.toml"
    return _build({"name": path.stem, **_read_toml(path)}, f"decision tree {path}")


def join(*schemas: Schema, name: str | None = None) -> Schema:
    """Join trees into one, for several campaigns at once; the label columns follow one another.

    A galaxy has votes for the questions of its own campaigns; the others have none and cost nothing.
    Proportions asked are then among the volunteers of a question's own campaign.

    Raises:
        SchemaError: no tree is given, or two trees share a question.

    >>> join(load("gz_rings"), load("gz2")).name
    'gz_rings+gz2'
    """
    if not schemas:
        raise SchemaError("join got no decision tree; expected one or more")
    names = [schema.name for schema in schemas]
    questions = tuple(question for schema in schemas for question in schema.questions)
    shared = (
        f"question {_show(repeated)} is in "
        + " and ".join(_show(schema.name) for schema in schemas if repeated in schema.question_names)
        for repeated in _repeated([question.name for question in questions])
    )
    _raise_faults(shared, f"decision trees {', '.join(names)} cannot be joined, rename what they share")
    return Schema(name or "+".join(names), questions, f"{len(names)} trees joined")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise SchemaError(
            f"decision tree {path} cannot be read: {reason}; expected a TOML file, or one of the built-in "
            f"{', '.join(available())}"
        ) from None
    if len(content) > _MAX_BYTES:
        raise SchemaError(
            f"decision tree {path} is larger than {_MAX_BYTES:,} bytes; expected a tree's TOML file"
        )
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise SchemaError(f"decision tree {path} is not valid TOML: nested too deeply") from None
    except ValueError as error:  # bad UTF-8, bad TOML, or a number beyond Python's limits
        raise SchemaError(f"decision tree {path} is not valid TOML: {error}") from None


def _build(content: Mapping[str, Any], where: str) -> Schema:
    _raise_faults(_find_faults(content), where)
    questions = tuple(
        Question(
            entry["name"],
            tuple(Answer(entry["name"], text) for text in entry["answers"]),
            tuple(_texts(entry, "asked_after")),
        )
        for entry in content["question"]
    )
    return Schema(content["name"], questions, content.get("description", ""))


def _raise_faults(faults: Iterable[str], where: str) -> None:
    found = list(itertools.islice(faults, _MAX_FAULTS + 1))
    if len(found) > _MAX_FAULTS:
        found[-1] = "... and more"
    if found:
        raise SchemaError(f"{where}: {found[0]}" if len(found) == 1 else "\n  ".join([f"{where}:", *found]))


def _find_faults(content: object) -> Iterator[str]:
    """Find all that is wrong with a tree given as plain data; lazily, for suggestions take time."""
    if not isinstance(content, Mapping):
        yield f"expected a table with name, description and questions, got {_show(content)}"
        return
    yield from _key_faults(content, {"name", "question"}, {"description"}, "the tree")
    yield from _text_faults(content.get("name", "made"), "the tree's name")
    yield from _text_faults(content.get("description") or "none", "the tree's description")
    entries = content.get("question")
    if not isinstance(entries, list) or not entries:
        yield f"no question: expected one [[question]] table or more, got {_show(entries)}"
    elif max(len(entries), sum(len(_texts(entry, "answers")) for entry in entries)) > _MAX_ANSWERS:
        yield f"too large: expected at most {_MAX_ANSWERS:,} answers in all"
    else:
        for position, entry in enumerate(entries, start=1):
            yield from _question_faults(entry, f"question number {position}")
        yield from _relation_faults([e for e in entries if isinstance(e, Mapping) and "name" in e])


def _question_faults(entry: object, where: str) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"{where}: expected a [[question]] table, got {_show(entry)}"
        return
    if "name" in entry:
        yield from _text_faults(entry["name"], f"{where}: its name")
        where = f"question {_show(entry['name'])}"
    yield from _key_faults(entry, {"name", "answers"}, {"asked_after"}, where)
    for key in ("answers", "asked_after"):
        if not isinstance(entry.get(key, []), list):
            yield f'{where}: {key} is {_show(entry[key])}; expected a list of texts, such as ["yes", "no"]'
    answers = entry.get("answers")
    if isinstance(answers, list):
        for answer in answers:
            yield from _text_faults(answer, f"{where}: one of its answers")
        if len(answers) < 2:
            yield f"{where} has fewer than two answers; expected at least two"


def _relation_faults(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    for name in _repeated([str(entry["name"]) for entry in entries]):
        yield f"duplicate question {_show(name)}; every question needs a name of its own"
    tree = {str(entry["name"]): entry for entry in entries}
    columns = [(f"{name}_{text}", name) for name, entry in tree.items() for text in _texts(entry, "answers")]
    for label in _repeated([label for label, _ in columns]):
        makers = " and ".join(f"question {_show(name)}" for other, name in columns if other == label)
        yield f"duplicate label column {_show(label)}, made by {makers}; rename an answer or a question"
    owners = dict(columns)
    parents: dict[str, set[str]] = {name: set() for name in tree}
    for name, entry in tree.items():
        labels = _texts(entry, "asked_after")
        for label in _repeated(labels):
            yield f"question {_show(name)}: duplicate {_show(label)} in asked_after; name it once"
        for label in dict.fromkeys(labels):
            if label in owners:
                parents[name].add(owners[label])
            else:
                hint = _suggest(label, owners) or "; expected question_answer"
                yield f"question {_show(name)} is asked after {_show(label)}, which is no answer of this tree{hint}"
    yield from _cycle_faults(parents)


def _cycle_faults(parents: dict[str, set[str]]) -> Iterator[str]:
    while True:
        try:
            graphlib.TopologicalSorter(parents).prepare()
            return
        except graphlib.CycleError as error:
            cycle = error.args[1]
        yield f"cycle: {' -> '.join(map(_show, cycle))}; none of these questions could ever be asked"
        # without the questions of this cycle, look for another
        parents = {name: leading - set(cycle) for name, leading in parents.items() if name not in cycle}


def _key_faults(
    table: Mapping[str, Any], required: set[str], optional: set[str], where: str
) -> Iterator[str]:
    known = sorted(required | optional)
    for key in known:
        if key in required and key not in table:
            yield f"{where}: key {key!r} is missing"
    for key in table:
        if key not in known:
            yield f"{where}: unknown key {_show(key)}{_suggest(str(key), known)}; expected {', '.join(known)}"


def _text_faults(value: object, what: str) -> Iterator[str]:
    is_text = isinstance(value, str) and value == value.strip() and value.isprintable()
    if not is_text or not 1 <= len(str(value)) <= _MAX_TEXT:
        yield (
            f"{what} is {_show(value)}; expected one line of 1 to {_MAX_TEXT} printable characters, "
            "without space around it"
        )


def _texts(entry: object, key: str) -> list[str]:
    """The list under a key, as texts whatever was there: a fault of type must not entail a dozen others."""
    values = entry.get(key) if isinstance(entry, Mapping) else None
    return [str(value) for value in values] if isinstance(values, list) else []


def _repeated(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:60]}..."


def _suggest(wanted: str, known: Iterable[str]) -> str:
    # comparing may take milliseconds a name: bounded, as the names may be a stranger's
    close = difflib.get_close_matches(wanted[:_MAX_TEXT], list(itertools.islice(known, 200)))
    return f" (did you mean {' or '.join(map(_show, close))}?)" if close else ""


def _multiply(first: _Floats, second: _Floats) -> _Floats:
    """Multiply chances; zero times NaN is zero, for what nobody reaches need not be known."""
    product = np.asarray(first * second)
    product[(first == 0) | (second == 0)] = 0
    return product
