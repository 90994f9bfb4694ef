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
_MAX_DOTS = 1_000  # in a line: reading a key of so many parts takes the square of their number
_MAX_ANSWERS = 1_000
_MAX_TEXT = 300
_MAX_FAULTS = 30

_Floats: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Answer:
    """One answer to a question."""

    question: str
    text: str

    @property
    def label_col(self) -> str:
        """Name of the column with the votes for this answer."""
        return f"{self.question}_{self.text}"


@dataclass(frozen=True)
class Question:
    """A question, its answers in order, and the label columns that lead to it (none: asked of everyone)."""

    name: str
    answers: tuple[Answer, ...]
    asked_after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """A decision tree: questions and answers in the order of the label columns.

    Raises:
        SchemaError: the tree makes no sense; the message lists every fault.

    >>> schema = load("gz2")
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
        where = f"decision tree {_show(self.name)}"
        strangers = [a.label_col for q in self.questions for a in q.answers if a.question != q.name]
        if strangers:
            raise SchemaError(f"{where}: answers {_show(strangers)} lie in a question other than their own")
        _raise_faults(_find_faults(self.to_dict()), where)
        _raise_faults(self._find_overlaps(), where)

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

        The sum over the answers that lead to it, ``p(question) = Σ p(parent) · fraction(answer of parent)``:
        exact, as no volunteer gives two of them. A question asked of everyone has 1.

        Fractions, 0 to 1, are (..., answers), each among those who were asked its question; the result is
        (..., questions) of their dtype (integers: float64). Zero times NaN is zero: the NaN fractions of a
        question that nobody reaches have no effect. Any other NaN makes NaN of what depends on it.

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

        Errors as `question` and `proportion_asked`.
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
    def from_dict(cls, content: Mapping[str, Any], where: str = "decision tree") -> "Schema":
        """Make a schema from what `to_dict` gave, checked as strictly as a file: it may come from strangers.

        Messages call it ``where``.

        Raises:
            SchemaError: the message lists every fault.

        >>> Schema.from_dict(load("gz2").to_dict()) == load("gz2")
        True
        """
        _raise_faults(_find_faults(content), where)
        questions = (
            Question(
                entry["name"],
                tuple(Answer(entry["name"], text) for text in entry["answers"]),
                tuple(map(str, entry.get("asked_after", ()))),
            )
            for entry in content["question"]
        )
        return cls(content["name"], tuple(questions), content.get("description", ""))

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
                f"fractions are {array.dtype} of shape {array.shape}; expected numbers of shape "
                f"(..., {size}), one for each answer of {_show(self.name)}"
            )
        floats: _Floats = array if array.dtype.kind == "f" else array.astype(np.float64)
        wrong = floats[(floats < -1e-3) | (floats > 1 + 1e-3)]  # rounding may carry one a little too far
        if wrong.size:
            raise SettingError(f"fractions hold {wrong[0]:g}; expected 0 to 1; divide votes by their total")
        return floats

    @cached_property
    def _parents(self) -> dict[int, dict[int, list[int]]]:
        """Per question, in asking order: which questions lead to it, each with the label columns that do."""
        places = {name: index for index, name in enumerate(self.question_names)}
        leading = {answer.label_col: (places[answer.question], i) for i, answer in enumerate(self.answers)}
        parents: dict[int, dict[int, list[int]]] = {index: {} for index in places.values()}
        for index, question in enumerate(self.questions):
            for parent, column in map(leading.__getitem__, question.asked_after):
                parents[index].setdefault(parent, []).append(column)
        return {index: parents[index] for index in graphlib.TopologicalSorter(parents).static_order()}

    def _find_overlaps(self) -> Iterator[str]:
        """Find questions that one volunteer might be led to twice: adding chances would count that one double.

        Whoever is asked a question gave one of the ``needed`` answers to each of some questions before it.
        Two ways to a question exclude each other if they need different answers to the same question. Where
        branches have met again only what all of them need is kept, so a rare tree without fault is refused.
        """
        labels = self.label_cols
        needed: dict[int, dict[int, set[int]]] = {}
        for index, parents in self._parents.items():
            ways = [{**needed[parent], parent: set(columns)} for parent, columns in parents.items()]
            common = set.intersection(*map(set, ways)) if ways else set()
            needed[index] = {earlier: set().union(*(way[earlier] for way in ways)) for earlier in common}
            for one, other in itertools.combinations(ways, 2):
                if not any(one[earlier].isdisjoint(other[earlier]) for earlier in one.keys() & other):
                    first, second = (labels[min(list(way.values())[-1])] for way in (one, other))
                    yield (
                        f"question {_show(self.questions[index].name)} is asked after {_show(first)} and "
                        f"{_show(second)}, and a volunteer might give both; expected answers of one question, or "
                        "on branches that follow different answers to one question"
                    )


def available() -> list[str]:
    """List the names of the built-in trees."""
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
    return Schema.from_dict({"name": path.stem, **_read_toml(path)}, f"decision tree {path}")


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
    questions = tuple(question for schema in schemas for question in schema.questions)
    name = name or "+".join(schema.name for schema in schemas)
    return Schema(name, questions, f"{len(schemas)} trees joined")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # reading a pipe may never end
            raise ValueError("it is a folder, a pipe or a device")
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise SchemaError(
            f"decision tree {path} cannot be read: {reason}; built in are {', '.join(available())}"
        ) from None
    if len(content) > _MAX_BYTES:
        raise SchemaError(f"decision tree {path} is larger than {_MAX_BYTES:,} bytes; expected a TOML file")
    if any(line.count(b".") > _MAX_DOTS for line in content.splitlines()):
        raise SchemaError(f"decision tree {path} is not valid TOML: a line has more than {_MAX_DOTS:,} dots")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        # bad UTF-8 or TOML, or numbers or nesting beyond Python's limits
        raise SchemaError(f"decision tree {path} is not valid TOML: {error}") from None


def _raise_faults(faults: Iterable[str], where: str) -> None:
    found = list(itertools.islice(faults, _MAX_FAULTS + 1))
    if len(found) > _MAX_FAULTS:
        found[-1] = "... and more"
    if found:
        raise SchemaError(f"{where}: {found[0]}" if len(found) == 1 else "\n  ".join([f"{where}:", *found]))


def _find_faults(content: object) -> Iterator[str]:
    """Find all that is wrong with a tree given as plain data; lazily, for suggestions take time."""
    yield from _table_faults(content, {"name": str, "question": list}, {"description": str}, "the tree")
    entries = _list(content, "question")
    if sum(max(1, len(_list(entry, "answers"))) for entry in entries) > _MAX_ANSWERS:
        yield f"too large: expected at most {_MAX_ANSWERS:,} answers in all"
        return
    named: list[Mapping[str, Any]] = []
    for position, entry in enumerate(entries, start=1):
        where = f"question number {position}"
        if isinstance(entry, Mapping) and "name" in entry:
            named.append(entry)
            where = f"question {_show(entry['name'])}"
        yield from _table_faults(entry, {"name": str, "answers": list}, {"asked_after": list}, where)
        for answer in _list(entry, "answers"):
            yield from _text_faults(answer, f"{where}: one of its answers")
        if len(_list(entry, "answers")) == 1:
            yield f"{where} has fewer than two answers; expected at least two"
    yield from _relation_faults(named)


def _relation_faults(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    for name in _repeated([str(entry["name"]) for entry in entries]):
        yield f"duplicate question {_show(name)}; every question needs a name of its own"
    tree = {str(entry["name"]): entry for entry in entries}
    columns = [(f"{name}_{text}", name) for name, entry in tree.items() for text in _list(entry, "answers")]
    for label in _repeated([label for label, _ in columns]):
        makers = " and ".join(f"question {_show(name)}" for other, name in columns if other == label)
        yield f"duplicate label column {_show(label)}, made by {makers}; rename an answer or a question"
    owners = dict(columns)
    parents: dict[str, set[str]] = {name: set() for name in tree}
    for name, entry in tree.items():
        labels = list(map(str, _list(entry, "asked_after")))
        for label in _repeated(labels):
            yield f"question {_show(name)}: duplicate {_show(label)} in asked_after; name it once"
        for label in dict.fromkeys(labels):
            if label in owners:
                parents[name].add(owners[label])
            else:
                hint = _suggest(label, owners) or "; expected question_answer"
                yield f"question {_show(name)} is asked after {_show(label)}, which is no answer here{hint}"
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


def _table_faults(table: object, required: dict[str, type], optional: dict[str, type], where: str) -> Iterator[str]:
    known = required | optional
    if not isinstance(table, Mapping):
        yield f"{where} is {_show(table)}; expected a table with {', '.join(known)}"
        return
    for key in required:
        if key not in table:
            yield f"{where}: key {key!r} is missing"
    for key, value in table.items():
        if key not in known:
            yield f"{where}: unknown key {_show(key)}{_suggest(str(key), known)}; expected {', '.join(known)}"
        elif known[key] is list and not (isinstance(value, list) and (value or key in optional)):
            yield f"{where}: {key} is {_show(value)}; expected a list"
        elif known[key] is str and (value != "" or key in required):
            yield from _text_faults(value, f"{where}: its {key}")


def _text_faults(value: object, what: str) -> Iterator[str]:
    is_text = isinstance(value, str) and value == value.strip() and value.isprintable()
    if not is_text or not 1 <= len(str(value)) <= _MAX_TEXT:
        expected = f"one line of 1 to {_MAX_TEXT} printable characters, without space around it"
        yield f"{what} is {_show(value)}; expected {expected}"


def _list(table: object, key: str) -> list[Any]:
    """The list under a key, empty where it is something else: that is a fault of its own."""
    values = table.get(key) if isinstance(table, Mapping) else None
    return values if isinstance(values, list) else []


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
