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
the question is asked of everyone. Questions may come in any order, and so will the label columns.
The name of the tree is the file's, without ``.toml``, unless the file has a ``name`` of its own.

Every chance below rests on one assumption: volunteers answer different questions of a galaxy independently.
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
_MAX_NAME = 100
_MAX_DESCRIPTION = 500
_MAX_WAYS = 100
_MAX_STEPS = 1_000
_MAX_FAULTS_SHOWN = 30

_Floats: TypeAlias = NDArray[np.floating[Any]]
# One way to a question: per question on it (its place in asking order), the label columns that lead on.
_Way: TypeAlias = tuple[tuple[int, frozenset[int]], ...]
# One step of a volunteer's walk: the label columns of each branch, and the step that it leads to (0: asked).
_Step: TypeAlias = list[tuple[list[int], int]]


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
        for answer in self.answers:
            if answer.question != self.name:
                raise SchemaError(
                    f"question {_show(self.name)}: its answer {_show(answer.text)} says that it belongs to "
                    f"{_show(answer.question)}; give both the same question"
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
        _ = self._walks  # a tree too tangled to compute is refused here, not in the middle of a prediction

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
        ends = list(itertools.accumulate(len(question.answers) for question in self.questions))
        return [
            (end - len(question.answers), end - 1) for question, end in zip(self.questions, ends, strict=True)
        ]

    def question(self, name: str) -> Question:
        """Find a question by its name.

        Raises:
            SchemaError: there is no such question.
        """
        return self.questions[self._question_index(name)]

    def proportion_asked(self, fractions: ArrayLike) -> _Floats:
        """Compute the probability that a volunteer is asked each question.

        A question is asked if any answer in its ``asked_after`` was given. Answers to one question exclude
        each other: ``p(question) = p(parent) · Σ fractions``. Where the answers are to several questions, the
        chance of any of them is exact too: a sum over the walks that lead there, no volunteer counted twice.

        Args:
            fractions: vote fractions, 0 to 1, (..., answers), each among those who were asked its question.

        Returns:
            (..., questions), 1 for questions asked of everyone; dtype as the fractions (integers: float64).
            Zero times NaN is zero: the NaN fractions of a question that nobody reaches have no effect.
            Any other NaN makes NaN of what depends on it.

        Raises:
            SettingError: fractions of another shape or kind, or outside 0 to 1.
        """
        return self._proportion_asked(self._check_fractions(fractions))

    def joint_p(self, fractions: ArrayLike, question_name: str) -> _Floats:
        """Compute the probability that a volunteer is asked one question: its column of `proportion_asked`.

        Raises:
            SchemaError: there is no such question.
            SettingError: as `proportion_asked`.
        """
        index = self._question_index(question_name)
        return np.asarray(self.proportion_asked(fractions)[..., index])

    def cumulative_fractions(self, fractions: ArrayLike) -> _Floats:
        """Compute the fraction of all volunteers who give each answer, ``fraction · p(question)``.

        Shapes, dtype, NaN policy and errors as `proportion_asked`; an answer that nobody reaches has 0.

        >>> schema = load("gz_rings")
        >>> schema.cumulative_fractions([0.25, 0.75])
        array([0.25, 0.75])
        """
        fractions = self._check_fractions(fractions)
        sizes = [len(question.answers) for question in self.questions]
        return _product(np.repeat(self._proportion_asked(fractions), sizes, axis=-1), fractions)

    def draw(self) -> str:
        """Draw the tree as text; a question that follows several answers is drawn once in full.

        >>> print(load("gz_rings").draw())
        ring
        ├── yes
        └── no
        """
        followers: dict[str, list[Question]] = {label: [] for label in self.label_cols}
        for question in self.questions:
            for label in question.asked_after:
                followers[label].append(question)
        lines: list[str] = []
        drawn: set[str] = set()
        for question in self.questions:
            if not question.asked_after:
                lines.append(question.name)
                _draw_answers(question, "", followers, drawn, lines)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give the content of the tree's TOML file as plain dicts, lists and strings, ready for JSON."""
        questions = [
            {
                "name": question.name,
                "answers": [answer.text for answer in question.answers],
                "asked_after": list(question.asked_after),
            }
            for question in self.questions
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

    def _proportion_asked(self, fractions: _Floats) -> _Floats:
        asked = np.ones((*fractions.shape[:-1], len(self.questions)), fractions.dtype)
        for index in self._asking_order:
            parents = self._parents[index]
            if len(parents) == 1:
                ((parent, columns),) = parents.items()
                asked[..., index] = _product(asked[..., parent], _total(fractions, columns))
            elif parents:
                asked[..., index] = _chance(self._walks[index], fractions)
        return asked

    def _question_index(self, name: str) -> int:
        names = self.question_names
        if name not in names:
            raise SchemaError(
                f"question {_show(name)} is not in decision tree {_show(self.name)}{_suggest(name, names)}; "
                f"its questions: {', '.join(names)}"
            )
        return names.index(name)

    def _check_fractions(self, fractions: ArrayLike) -> _Floats:
        array = np.asarray(fractions)
        expected = (
            f"vote fractions of the {len(self.answers)} answers of {_show(self.name)} in the last dimension"
        )
        if array.dtype.kind not in "fiub":
            raise SettingError(f"fractions are {array.dtype}; expected numbers: {expected}")
        if array.ndim == 0 or array.shape[-1] != len(self.answers):
            raise SettingError(f"fractions have shape {array.shape}; expected {expected}")
        # rounding, in float32 above all, may carry a fraction a little past its limits
        floats: _Floats = array if array.dtype.kind == "f" else array.astype(np.float64)
        low = np.fmin.reduce(floats, axis=None, initial=0)
        high = np.fmax.reduce(floats, axis=None, initial=0)
        if low < -1e-3 or high > 1 + 1e-3:
            raise SettingError(
                f"fractions go from {low:g} to {high:g}; expected 0 to 1; divide votes by their total"
            )
        return floats

    @cached_property
    def _parents(self) -> list[dict[int, list[int]]]:
        """Per question: the questions that lead to it, each with the label columns that do."""
        columns = {label: column for column, label in enumerate(self.label_cols)}
        owners = np.repeat(np.arange(len(self.questions)), [len(q.answers) for q in self.questions]).tolist()
        parents: list[dict[int, list[int]]] = [{} for _ in self.questions]
        for index, question in enumerate(self.questions):
            for label in question.asked_after:
                parents[index].setdefault(owners[columns[label]], []).append(columns[label])
        return parents

    @cached_property
    def _asking_order(self) -> list[int]:
        """Indices of the questions, each after all that lead to it."""
        return list(graphlib.TopologicalSorter(dict(enumerate(self._parents))).static_order())

    @cached_property
    def _walks(self) -> dict[int, list[_Step]]:
        """The walk to each question whose parents are answers to several questions."""
        order, groups = self._asking_order, self.question_index_groups
        if all(len(parents) < 2 for parents in self._parents):
            return {}
        place = {index: position for position, index in enumerate(order)}
        columns = [range(groups[index][0], groups[index][1] + 1) for index in order]
        ways: dict[int, frozenset[_Way]] = {}
        walks: dict[int, list[_Step]] = {}
        for index in order:
            parents = self._parents[index]
            found = {
                (*way, (place[parent], frozenset(leading)))
                for parent, leading in parents.items()
                for way in ways[parent]
            }
            ways[index] = frozenset(found) if parents else frozenset({()})
            if len(found) > _MAX_WAYS:
                raise self._too_tangled(index)
            if len(parents) > 1:
                walks[index] = []
                try:
                    _plan_walk(ways[index], columns, walks[index], {})
                except OverflowError:
                    raise self._too_tangled(index) from None
        return walks

    def _too_tangled(self, index: int) -> SchemaError:
        name = self.questions[index].name
        return SchemaError(
            f"decision tree {_show(self.name)}: question {_show(name)} can be reached in too many ways; "
            "let it follow fewer answers"
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
    owners: dict[str, str] = {}
    shared = []
    for schema in schemas:
        for question in schema.question_names:
            if question in owners:
                shared.append(
                    f"question {_show(question)} is in {_show(owners[question])} and {_show(schema.name)}"
                )
            owners[question] = schema.name
    names = [schema.name for schema in schemas]
    _raise_faults(
        shared, f"decision trees {', '.join(names)} cannot be joined, rename the questions they share"
    )
    questions = tuple(question for schema in schemas for question in schema.questions)
    return Schema(name or "+".join(names), questions, f"{len(names)} trees joined")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise SchemaError(
            f"decision tree {path}: there is no such file; built in: {', '.join(available())}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise SchemaError(f"decision tree {path} cannot be read: {reason}; expected a TOML file") from None
    if len(content) > _MAX_BYTES:
        raise SchemaError(
            f"decision tree {path} is larger than {_MAX_BYTES:,} bytes; expected the TOML file of a tree"
        )
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (
        ValueError,
        RecursionError,
    ) as error:  # bad UTF-8, bad TOML, numbers or nesting beyond Python's limits
        reason = error if isinstance(error, ValueError) else "nested too deeply"
        raise SchemaError(f"decision tree {path} is not valid TOML: {reason}") from None


def _build(content: Mapping[str, Any], where: str) -> Schema:
    _raise_faults(_find_faults(content), where)
    questions = tuple(
        Question(
            entry["name"],
            tuple(Answer(entry["name"], text) for text in entry["answers"]),
            tuple(entry.get("asked_after", ())),
        )
        for entry in content["question"]
    )
    return Schema(content["name"], questions, content.get("description", ""))


def _raise_faults(faults: Iterable[str], where: str) -> None:
    found = list(itertools.islice(faults, _MAX_FAULTS_SHOWN + 1))
    if len(found) > _MAX_FAULTS_SHOWN:
        found[-1] = "... and more"
    if len(found) == 1:
        raise SchemaError(f"{where}: {found[0]}")
    if found:
        raise SchemaError("\n  ".join([f"{where}:", *found]))


def _find_faults(content: object) -> Iterator[str]:
    """Find all that is wrong with a tree given as plain data; lazily, for suggestions take time."""
    if not isinstance(content, Mapping):
        yield f"expected a table with name, description and questions, got {_show(content)}"
        return
    yield from _key_faults(content, {"name", "question"}, {"description"}, "the tree")
    if "name" in content:
        yield from _text_faults(content["name"], "the tree's name")
    if content.get("description", "") != "":
        yield from _text_faults(content["description"], "the tree's description", _MAX_DESCRIPTION)
    entries = content.get("question", [])
    if not isinstance(entries, list) or not entries:
        yield f"no question: expected one [[question]] table or more, got {_show(entries)}"
        return
    if sum(len(_texts(entry, "answers")) for entry in entries) > _MAX_ANSWERS or len(entries) > _MAX_ANSWERS:
        yield f"too large: expected at most {_MAX_ANSWERS:,} answers in all"
        return
    for position, entry in enumerate(entries, start=1):
        yield from _question_faults(entry, position)
    yield from _relation_faults(
        [entry for entry in entries if isinstance(entry, Mapping) and "name" in entry]
    )


def _question_faults(entry: object, position: int) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"question number {position}: expected a [[question]] table, got {_show(entry)}"
        return
    name = entry.get("name")
    where = (
        f"question {_show(name)}" if isinstance(name, str) and name.strip() else f"question number {position}"
    )
    yield from _key_faults(entry, {"name", "answers"}, {"asked_after"}, where)
    if "name" in entry:
        yield from _text_faults(name, f"{where}: its name")
    for key in ("answers", "asked_after"):
        values = entry.get(key, [])
        if not isinstance(values, list):
            yield f'{where}: {key} is {_show(values)}; expected a list of texts, such as ["yes", "no"]'
            continue
        limit = _MAX_NAME if key == "answers" else 2 * _MAX_NAME + 1
        for value in values:
            yield from _text_faults(value, f"{where}: one of its {key}", limit)
        for value in _repeated(_texts(entry, key)):
            yield f"{where}: duplicate {_show(value)} in {key}; name it once"
    if isinstance(entry.get("answers"), list) and len(entry["answers"]) < 2:
        yield f"{where} has fewer than two answers; expected at least two"


def _relation_faults(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    names = [str(entry["name"]) for entry in entries]
    for name in _repeated(names):
        yield f"duplicate question {_show(name)}; every question needs a name of its own"
    owners: dict[str, str] = {}
    for name, entry in zip(names, entries, strict=True):
        for text in _texts(entry, "answers"):
            owner = owners.setdefault(f"{name}_{text}", name)
            if owner != name:
                yield (
                    f"duplicate label column {_show(f'{name}_{text}')}: question {_show(owner)} and question "
                    f"{_show(name)} both make it; rename one of them"
                )
    parents: dict[str, list[str]] = {name: [] for name in names}
    for name, entry in zip(names, entries, strict=True):
        for label in _texts(entry, "asked_after"):
            if label in owners:
                parents[name].append(owners[label])
            else:
                suggestion = _suggest(label, owners)
                yield (
                    f"question {_show(name)} is asked after {_show(label)}, which is no answer of this tree"
                    f"{suggestion or '; expected question_answer'}"
                )
    yield from _cycle_faults(parents)


def _cycle_faults(parents: dict[str, list[str]]) -> Iterator[str]:
    while True:
        try:
            graphlib.TopologicalSorter(parents).prepare()
        except graphlib.CycleError as error:
            cycle = error.args[1]
        else:
            return
        if len(cycle) == 2:
            yield f"question {_show(cycle[0])} is asked after itself; name an answer of an earlier question"
        else:
            yield f"cycle: {' -> '.join(map(_show, cycle))}; none of these questions could ever be asked"
        # without the questions of this cycle, look for another
        parents = {
            name: [parent for parent in leading if parent not in cycle]
            for name, leading in parents.items()
            if name not in cycle
        }


def _key_faults(
    table: Mapping[str, Any], required: set[str], optional: set[str], where: str
) -> Iterator[str]:
    for key in sorted(required - set(table)):
        yield f"{where}: key {key!r} is missing"
    for key in table:
        if key not in required | optional:
            known = sorted(required | optional)
            yield f"{where}: unknown key {_show(key)}{_suggest(str(key), known)}; expected {', '.join(known)}"


def _text_faults(value: object, what: str, limit: int = _MAX_NAME) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{what} is {_show(value)}; expected text in quotes"
    elif not value.strip():
        yield f"{what} is empty; expected text"
    elif len(value) > limit:
        yield f"{what} is {_show(value)}, {len(value):,} characters; expected at most {limit}"
    elif value != value.strip() or not value.isprintable():
        yield f"{what} is {_show(value)}; expected one line of printable text, without space around it"


def _texts(entry: object, key: str) -> list[str]:
    """The list under a key, as texts whatever was there: a fault of type must not entail a dozen others."""
    values = entry.get(key, []) if isinstance(entry, Mapping) else []
    return [str(value) for value in values] if isinstance(values, list) else []


def _repeated(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 2 * _MAX_NAME else f"{shown[:60]}..."


def _suggest(wanted: str, known: Iterable[str]) -> str:
    # comparing takes about a millisecond a name: bounded, as the names may be a stranger's
    candidates = itertools.islice(known, 200)
    close = difflib.get_close_matches(wanted[: 2 * _MAX_NAME], list(candidates), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(map(_show, close))}?)" if close else ""


def _product(first: _Floats, second: _Floats) -> _Floats:
    """Multiply chances; zero times NaN is zero, for what nobody reaches need not be known."""
    product = np.asarray(first * second)
    if bool(np.isnan(product).any()):
        product[np.isnan(product) & ((first == 0) | (second == 0))] = 0
    return product


def _total(fractions: _Floats, columns: list[int]) -> _Floats:
    """Sum the fractions of some answers; column by column is much faster than a gather and a sum."""
    return sum((fractions[..., column] for column in columns[1:]), start=fractions[..., columns[0]])


def _plan_walk(ways: frozenset[_Way], columns: list[range], steps: list[_Step], known: dict[Any, int]) -> int:
    """Split the ways to a question by the answers to one question after another: no volunteer counts twice.

    This builds a decision diagram (Bryant 1986, IEEE Trans. Comput. C-35, 677): answers that leave the same
    ways open share a branch. The shortest way is followed first, from its first question on.
    Appends to ``steps``, each after those it leads to; returns the step's number, counted from 1 (0: asked).

    Raises:
        OverflowError: the ways cross so often that there is no end of steps.
    """
    if () in ways:
        return 0
    if ways not in known:
        place = min((len(way), way[0][0]) for way in ways)[1]
        branches: dict[frozenset[_Way], list[int]] = {}
        for column in columns[place]:
            branches.setdefault(_ways_left(ways, place, column), []).append(column)
        step: _Step = []
        for left, leading in branches.items():
            if left:
                step.append((leading, _plan_walk(left, columns, steps, known)))
        steps.append(step)
        if len(steps) > _MAX_STEPS:
            raise OverflowError
        known[ways] = len(steps)
    return known[ways]


def _ways_left(ways: frozenset[_Way], place: int, column: int) -> frozenset[_Way]:
    """Give what is left of the ways once a volunteer has given one answer to the question at a place."""
    return frozenset(
        tuple(choice for choice in way if choice[0] != place)
        for way in ways
        if all(column in leading for position, leading in way if position == place)
    )


def _chance(steps: list[_Step], fractions: _Floats) -> _Floats:
    """Compute the chance that a walk ends with the question asked."""
    chances: list[_Floats] = [np.ones(fractions.shape[:-1], fractions.dtype)]
    for step in steps:
        branches = [_product(_total(fractions, leading), chances[left]) for leading, left in step]
        chances.append(sum(branches[1:], start=branches[0]))
    return chances[-1]


def _draw_answers(
    question: Question, indent: str, followers: dict[str, list[Question]], drawn: set[str], lines: list[str]
) -> None:
    drawn.add(question.name)
    for answer in question.answers:
        is_last = answer is question.answers[-1]
        lines.append(f"{indent}{'└──' if is_last else '├──'} {answer.text}")
        inner = indent + ("    " if is_last else "│   ")
        following = followers[answer.label_col]
        for follower in following:
            ends = follower is following[-1]
            is_drawn = follower.name in drawn
            lines.append(
                f"{inner}{'└─▶' if ends else '├─▶'} {follower.name}{' (see above)' if is_drawn else ''}"
            )
            if not is_drawn:
                _draw_answers(follower, inner + ("    " if ends else "│   "), followers, drawn, lines)
