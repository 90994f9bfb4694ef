"""Decision trees: the facts of Galaxy Zoo's, the laws of their chances, and every fault of a tree file."""

import itertools
import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from zoobot import schemas
from zoobot.errors import SchemaError, SettingError
from zoobot.schemas import Answer, Question, Schema

NAMES_IN_REFERENCE = {
    **{f"gz_decals_{release}": f"decals_{release}_ortho" for release in ("dr12", "dr5", "dr8")},
    **{f"gz_{survey}": f"{survey}_ortho" for survey in ("ukidss", "hubble", "hubble_v2", "candels")},
    **{f"gz_{survey}": f"{survey}_ortho" for survey in ("cosmic_dawn", "jwst", "jwst_cosmos", "euclid")},
    **{"gz_decals": "desi", "gz2": "gz2_ortho", "gz2_full": "gz2_full", "gz_rings": "rings"},
}

SMALL = """
description = "A child before its parent, and a question after two answers"

[[question]]
name = "arms"
answers = ["1", "2"]
asked_after = ["edge_no"]

[[question]]
name = "shape"
answers = ["smooth", "featured", "star"]

[[question]]
name = "edge"
answers = ["yes", "no"]
asked_after = ["shape_featured"]

[[question]]
name = "odd"
answers = ["yes", "no"]
asked_after = ["shape_smooth", "shape_featured"]
"""


Tree: TypeAlias = dict[str, tuple[list[str], list[str]]]


def make(tree: Tree) -> Schema:
    entries = [{"name": q, "answers": answers, "asked_after": after} for q, (answers, after) in tree.items()]
    return Schema.from_dict({"name": "made", "question": entries})


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def random_fractions(schema: Schema, seed: int, shape: tuple[int, ...] = ()) -> np.ndarray:
    generator = np.random.default_rng(seed)
    sizes = [len(question.answers) for question in schema.questions]
    return np.concatenate([generator.dirichlet(np.ones(size), shape) for size in sizes], axis=-1)


def count_askings(schema: Schema, fractions: np.ndarray) -> np.ndarray:
    """Proportions asked by brute force: all possible volunteers, with an answer ready to every question."""
    column = {label: index for index, label in enumerate(schema.label_cols)}
    asked_share = np.zeros(len(schema.questions))
    for ready in itertools.product(*(question.answers for question in schema.questions)):
        weight = np.prod([fractions[column[answer.label_col]] for answer in ready])
        asked: set[str] = set()
        for _ in schema.questions:
            given = {answer.label_col for answer in ready if answer.question in asked}
            asked |= {q.name for q in schema.questions if not q.asked_after or given & set(q.asked_after)}
        asked_share += weight * np.array([question.name in asked for question in schema.questions])
    return asked_share


# --- the trees of Galaxy Zoo


def test_built_in_trees_are_exactly_those_of_galaxy_zoo() -> None:
    assert schemas.available() == sorted(NAMES_IN_REFERENCE)


@pytest.mark.parametrize("name", sorted(NAMES_IN_REFERENCE))
def test_tree_holds_the_published_facts(name: str, shared_data: Path) -> None:
    reference = json.loads((shared_data.parent / "reference" / "trees.json").read_text())
    expected = [
        (entry["question"], entry["answers"], entry["asked_after"])
        for entry in reference[NAMES_IN_REFERENCE[name]]["questions"]
    ]
    schema = schemas.load(name)
    found = [(q.name, [answer.text for answer in q.answers], list(q.asked_after)) for q in schema.questions]
    assert found == expected
    assert schema.name == name
    assert schema.description


def test_label_columns_of_the_real_catalog(shared_data: Path) -> None:
    header = (shared_data / "gz2_kaggle" / "catalog.csv").open().readline().strip().split(",")
    assert set(schemas.load("gz2_full").label_cols) <= set(header)


# --- probabilities


def test_proportion_asked_by_hand(tmp_path: Path) -> None:
    schema = schemas.load(write(tmp_path, SMALL))
    #            arms 1, 2 | smooth, featured, star | edge yes, no | odd yes, no
    fractions = [0.3, 0.7, 0.2, 0.5, 0.3, 0.4, 0.6, 0.1, 0.9]
    assert schema.question_names == ["arms", "shape", "edge", "odd"]
    np.testing.assert_allclose(schema.proportion_asked(fractions), [0.5 * 0.6, 1, 0.5, 0.7])
    np.testing.assert_allclose(schema.joint_p(fractions, "arms"), 0.3)
    expected = [0.09, 0.21, 0.2, 0.5, 0.3, 0.2, 0.3, 0.07, 0.63]
    np.testing.assert_allclose(schema.cumulative_fractions(fractions), expected)


@pytest.mark.parametrize("name", schemas.available())
def test_laws_of_every_tree(name: str) -> None:
    schema = schemas.load(name)
    fractions = random_fractions(schema, seed=1, shape=(3, 5))
    asked = schema.proportion_asked(fractions)
    cumulative = schema.cumulative_fractions(fractions)
    assert asked.shape == (3, 5, len(schema.questions))
    assert cumulative.shape == fractions.shape
    for index, (question, (first, last)) in enumerate(zip(schema.questions, schema.question_index_groups, strict=True)):
        # whoever is asked gives one answer
        np.testing.assert_allclose(cumulative[..., first : last + 1].sum(-1), asked[..., index])
        # in Galaxy Zoo's trees the parents of a question exclude one another
        parents = [schema.label_cols.index(label) for label in question.asked_after]
        leading = cumulative[..., parents].sum(-1) if parents else np.ones((3, 5))
        np.testing.assert_allclose(asked[..., index], leading)
    # one galaxy at a time gives the same as all at once
    np.testing.assert_array_equal(asked[1, 2], schema.proportion_asked(fractions[1, 2]))


# exclusive branches: 'no' to a, or 'yes' to a and on to an answer of c
BRANCHES = {
    "a": (["y", "n"], []),
    "b": (["y", "n", "z"], ["a_y"]),
    "c": (["y", "n"], ["b_y", "b_z"]),
    "d": (["y", "n"], ["a_n", "c_y"]),
}


def test_answers_of_several_questions_on_exclusive_branches() -> None:
    schema = make(dict(reversed(BRANCHES.items())))
    fractions = random_fractions(schema, seed=2)
    np.testing.assert_allclose(schema.proportion_asked(fractions), count_askings(schema, fractions))


ROOT_A: Tree = {"a": (["y", "n"], [])}
OVERLAPPING: list[Tree] = [
    {**ROOT_A, "b": (["y", "n"], []), "c": (["y", "n"], ["a_y", "b_n"])},  # two roots
    {**ROOT_A, "b": (["y", "n"], ["a_y"]), "c": (["y", "n"], ["a_y", "b_n"])},  # an answer and its follow-up
    {**ROOT_A, "b": (["y", "n"], ["a_y"]), "d": (["y", "n"], ["a_y"]), "c": (["y", "n"], ["b_y", "d_n"])},
]


@pytest.mark.parametrize("tree", OVERLAPPING)
def test_answers_that_one_volunteer_may_give_together_are_refused(tree: Tree) -> None:
    with pytest.raises(SchemaError, match=r"question 'c' is asked after '\w_y' and '\w_n', and a volunteer might"):
        make(tree)


@pytest.mark.parametrize("seed", range(40))
def test_random_trees_are_right_or_refused(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tree: Tree = {}
    for name in "fedcba":  # later letters first, so that asking order and file order differ
        labels = [f"{q}_{text}" for q, (answers, _) in tree.items() for text in answers]
        after = generator.permutation(labels)[: int(generator.integers(0, 3))].tolist()
        candidate = {**tree, name: (["x", "y", "z"][: int(generator.integers(2, 4))], after)}
        try:
            make(candidate)
            tree = candidate
        except SchemaError:
            tree[name] = (candidate[name][0], after[:1])
    schema = make(dict(sorted(tree.items())))
    fractions = random_fractions(schema, seed)
    np.testing.assert_allclose(schema.proportion_asked(fractions), count_askings(schema, fractions))


def test_nan_of_a_question_that_nobody_reaches_is_harmless(tmp_path: Path) -> None:
    schema = schemas.load(write(tmp_path, SMALL))
    nan = np.nan
    nobody = np.array([nan, nan, 1, 0, 0, nan, nan, 0.5, 0.5])
    np.testing.assert_array_equal(schema.proportion_asked(nobody), [0, 1, 0, 1])
    np.testing.assert_array_equal(schema.cumulative_fractions(nobody), [0, 0, 1, 0, 0, 0, 0, 0.5, 0.5])
    # where somebody is asked, unknown stays unknown
    somebody = np.array([nan, nan, 0.5, 0.5, 0, nan, nan, 0.5, 0.5])
    np.testing.assert_array_equal(schema.proportion_asked(somebody), [nan, 1, 0.5, 1])
    branches = [0, 1, nan, nan, nan, nan, nan, 0.5, 0.5]  # nobody is asked b or c, everybody d
    np.testing.assert_array_equal(make(BRANCHES).proportion_asked(branches), [1, 0, 0, 1])


def test_dtype_is_kept() -> None:
    schema = schemas.load("gz_rings")
    assert schema.cumulative_fractions(np.full(2, 0.5, np.float32)).dtype == np.float32
    assert schema.cumulative_fractions([1, 0]).dtype == np.float64
    assert schema.proportion_asked(np.zeros((0, 2))).shape == (0, 1)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([0.2, 0.3, 0.5], r"shape \(3,\); expected .* \(..., 2\)"),
        (0.5, r"shape \(\)"),
        (["a", "b"], "expected numbers"),
        ([12, 3], "hold 12; expected 0 to 1; divide votes"),
        ([-0.1, np.nan], "hold -0.1"),
    ],
)
def test_fractions_that_are_none(fractions: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        schemas.load("gz_rings").proportion_asked(fractions)  # type: ignore[arg-type]


# --- drawing, plain data, joining


def test_drawing(tmp_path: Path) -> None:
    assert schemas.load(write(tmp_path, SMALL)).draw().splitlines() == [
        "shape",
        "├── smooth",
        "│   └─▶ odd",
        "│       ├── yes",
        "│       └── no",
        "├── featured",
        "│   ├─▶ edge",
        "│   │   ├── yes",
        "│   │   └── no",
        "│   │       └─▶ arms",
        "│   │           ├── 1",
        "│   │           └── 2",
        "│   └─▶ odd (see above)",
        "└── star",
    ]


@pytest.mark.parametrize("name", schemas.available())
def test_json_and_back(name: str) -> None:
    schema = schemas.load(name)
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert hash(again) == hash(schema)


def test_question_by_name() -> None:
    schema = schemas.load("gz_rings")
    assert schema.question("ring") == Question("ring", (Answer("ring", "yes"), Answer("ring", "no")))
    with pytest.raises(SchemaError, match=r"question 'rings' is not in decision tree 'gz_rings' .did you mean 'ring'"):
        schema.question("rings")


def test_joined_trees_keep_their_columns_and_chances() -> None:
    parts = [schemas.load("gz2"), schemas.load("gz_rings"), schemas.load("gz_candels")]
    joined = schemas.join(*parts, name="all")
    assert joined.name == "all"
    assert joined.label_cols == [label for part in parts for label in part.label_cols]
    fractions = [random_fractions(part, seed) for seed, part in enumerate(parts)]
    separate = [part.proportion_asked(values) for part, values in zip(parts, fractions, strict=True)]
    np.testing.assert_array_equal(joined.proportion_asked(np.concatenate(fractions)), np.concatenate(separate))


def test_trees_that_cannot_be_joined() -> None:
    with pytest.raises(SchemaError, match=r"'gz2\+gz2_full'") as error:
        schemas.join(schemas.load("gz2"), schemas.load("gz2_full"))
    assert str(error.value).count("duplicate question") == 10
    with pytest.raises(SchemaError, match="no decision tree"):
        schemas.join()


# --- faults


def test_unknown_name() -> None:
    with pytest.raises(SchemaError, match=r"'gz_decal' is not built in .did you mean 'gz_decals'.*gz_rings.*\.toml"):
        schemas.load("gz_decal")


@pytest.mark.parametrize("given", ["nowhere.toml", "some/where", Path("gz2"), Path(), "null\0byte.toml"])
def test_file_that_cannot_be_read(given: str | Path) -> None:
    with pytest.raises(SchemaError, match=r"cannot be read: .*; built in are gz2, "):
        schemas.load(given)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"question = [", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"a = " + b"[" * 50_000, "not valid TOML"),
        (b"a = " + b"9" * 5_000, "not valid TOML"),
        (b"#" * 1_000_001, "larger than 1,000,000 bytes"),
        (b"", "mine.toml: the tree: key 'question' is missing"),
    ],
)
def test_file_that_is_no_tree(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=message) as error:
        schemas.load(path)
    assert str(path) in str(error.value)


def test_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert schemas.load(path).name == "mine"
    path.write_text('name = "other"\n' + SMALL)
    assert schemas.load(path).name == "other"


ROOT = {"name": "bar", "answers": ["yes", "no"]}
LINE = "expected one line of 1 to 300 printable characters"


def tree_of(*entries: object) -> dict[str, object]:
    return {"name": "made", "question": list(entries)}


def with_root(**changes: object) -> dict[str, object]:
    return tree_of({**ROOT, **changes})


def after(name: str, *labels: object) -> dict[str, object]:
    return {"name": name, "answers": ["yes", "no"], "asked_after": list(labels)}


FAULTS = [
    ([], r"the tree is \[\]; expected a table"),
    ({"question": [ROOT]}, "key 'name' is missing"),
    ({**tree_of(ROOT), "descripton": ""}, "unknown key 'descripton' .did you mean 'description'?"),
    ({**tree_of(ROOT), "name": 3}, f"the tree: its name is 3; {LINE}"),
    ({**tree_of(ROOT), "description": "a\nb"}, f"its description is .*; {LINE}"),
    (tree_of(), r"question is \[\]; expected a list"),
    ({"name": "made", "question": ROOT}, "question is {.*; expected a list"),
    (tree_of("bar"), "question number 1 is 'bar'; expected a table"),
    (tree_of({"answers": ["a", "b"]}), "question number 1: key 'name' is missing"),
    (tree_of({"name": "bar"}), "question 'bar': key 'answers' is missing"),
    (with_root(asked_afer=[]), "question 'bar': unknown key 'asked_afer' .did you mean 'asked_after'?"),
    (with_root(name=" "), f"question ' ': its name is ' '; {LINE}"),
    (with_root(name=["bar"]), f"its name is .'bar'.; {LINE}"),
    (with_root(name="b" * 301), f"its name is 'bbb.*; {LINE}"),
    (with_root(answers=["yes", ""]), f"one of its answers is ''; {LINE}"),
    (with_root(answers=["yes", "\x1b[2J"]), rf"one of its answers is '\\x1b\[2J'; {LINE}"),
    (with_root(answers=[1, "2"]), f"one of its answers is 1; {LINE}"),
    (with_root(answers="yes"), "answers is 'yes'; expected a list"),
    (with_root(answers=["yes"]), "question 'bar' has fewer than two answers"),
    (with_root(answers=["yes", "yes"]), "duplicate label column 'bar_yes'"),
    (with_root(answers=[str(n) for n in range(1_001)]), "at most 1,000"),
    (tree_of(*[{} for _ in range(1_001)]), "at most 1,000"),
    (tree_of(ROOT, ROOT), "duplicate question 'bar'"),
    (
        tree_of({"name": "a_b", "answers": ["c", "d"]}, {"name": "a", "answers": ["b_c", "d"]}),
        "duplicate label column 'a_b_c', made by question 'a_b' and question 'a'",
    ),
    (with_root(asked_after="bar_yes"), "asked_after is 'bar_yes'; expected a list"),
    (tree_of(ROOT, after("ring", "bar_no", "bar_no")), "duplicate 'bar_no' in asked_after"),
    (tree_of(ROOT, after("ring", 3)), "question 'ring' is asked after '3', which is no answer"),
    (
        tree_of(ROOT, after("ring", "bar_yess")),
        "'ring' is asked after 'bar_yess', which is no answer here .did you mean 'bar_yes'",
    ),
    (tree_of(ROOT, after("ring", "arms")), "which is no answer here; expected question_answer"),
    (tree_of(ROOT, after("ring", "ring_no")), "cycle: 'ring' -> 'ring'; none of these"),
    (
        tree_of(ROOT, after("a", "c_yes"), after("b", "a_yes"), after("c", "b_yes", "bar_no")),
        "cycle: ('a' -> 'b' -> 'c' -> 'a'|'b' -> 'c' -> 'a' -> 'b'|'c' -> 'a' -> 'b' -> 'c'); none of these",
    ),
]


@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_each_fault_has_its_message(content: dict[str, object], message: str) -> None:
    with pytest.raises(SchemaError, match=message) as error:
        Schema.from_dict(content)
    assert "\n" not in str(error.value)  # the one fault, and nothing that only follows from it


def test_all_faults_at_once(tmp_path: Path) -> None:
    text = """
        colour = true
        [[question]]
        name = "bar"
        answers = ["yes"]
        [[question]]
        name = "ring"
        answers = ["yes", "no"]
        asked_after = ["bar_no"]
        [[question]]
        name = "arms"
        answers = ["yes", "no"]
        asked_after = ["arms_no"]
    """
    with pytest.raises(SchemaError) as error:
        schemas.load(write(tmp_path, text))
    header, *faults = str(error.value).splitlines()
    assert header == f"decision tree {tmp_path / 'mine.toml'}:"
    assert len(faults) == 4
    for fault, what in zip(faults, ["colour", "fewer than two", "bar_no", "cycle"], strict=True):
        assert what in fault


def test_two_cycles_are_both_named() -> None:
    content = tree_of(after("a", "b_yes"), after("b", "a_yes"), after("c", "d_no"), after("d", "c_no"))
    with pytest.raises(SchemaError) as error:
        Schema.from_dict(content)
    assert str(error.value).count("cycle: ") == 2


def test_a_flood_of_faults_is_cut_short() -> None:
    with pytest.raises(SchemaError, match="and more") as error:
        Schema.from_dict(tree_of(*["x"] * 500))
    assert len(str(error.value).splitlines()) < 40


def test_a_schema_made_in_python_is_checked_too() -> None:
    bar = Question("bar", (Answer("bar", "yes"), Answer("bar", "no")))
    with pytest.raises(SchemaError, match="duplicate question 'bar'"):
        Schema("mine", (bar, bar))
    with pytest.raises(SchemaError, match=r"answers \['ring_yes'\] lie in a question other than"):
        Schema("mine", (Question("bar", (Answer("ring", "yes"), Answer("bar", "no"))),))


def test_a_long_chain_is_no_trouble() -> None:
    chain = [after(f"q{n}", *([f"q{n - 1}_yes"] if n else [])) for n in range(499)]
    schema = Schema.from_dict(tree_of(*chain, after("last", "q0_no", "q498_yes")))
    fractions = np.tile([0.75, 0.25], 500)
    np.testing.assert_allclose(schema.proportion_asked(fractions)[-1], 0.25 + 0.75**499)
    assert len(schema.draw().splitlines()) == 1501
