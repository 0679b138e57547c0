"""A small, seeded part of the fuzzing in ``long.py``, and programs and JSON that hypothesis makes up and shrinks."""

import gc
import json
import pathlib
import random

import guard
import pickles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import KINDS

from sean_jax.errors import UserError

SHORT = settings(
    max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
INPUTS = {"evaluation.json": 2, "metrics.jsonl": 2, "metadata": 10, "label": 10, "image": 10}  # others: 20


@pytest.fixture(scope="module", autouse=True)
def watched():
    guard.install()
    gc.collect()
    gc.freeze()  # what is there by now need not be looked through before each input
    yield
    gc.unfreeze()


@pytest.fixture
def output(tmp_path) -> pathlib.Path:
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


def read(kind: str, content: bytes, suffix: str, output: pathlib.Path) -> guard.Outcome:
    file = output.parent / f"input{suffix}"
    file.write_bytes(content)
    return guard.attempt(KINDS[kind].read, file, output, KINDS[kind].bound)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_crafted_files_are_read_or_refused(kind, output):
    sound = []
    for content in KINDS[kind].seeds():  # what is to be damaged, and what readers import and start only once
        (output.parent / f"sound{KINDS[kind].suffixes[0]}").write_bytes(content)
        try:
            KINDS[kind].read(output.parent / f"sound{KINDS[kind].suffixes[0]}", output)
            sound.append(content)
        except UserError:
            pass
    assert sound
    for number in range(INPUTS.get(kind, 20)):
        content, suffix = KINDS[kind].make(random.Random(f"test/{kind}/{number}"))
        outcome = read(kind, content, suffix, output)
        assert not outcome.is_fault, (number, outcome)


OPCODES = st.sampled_from(
    (
        *(
            b"(",
            b")",
            b"t",
            b"R",
            b"}",
            b"]",
            b"s",
            b"u",
            b"a",
            b"e",
            b"b",
            b"0",
            b"2",
            b"\x81",
            b"\x85",
            b"Q",
            b"\x8f",
        ),
        *(b"q\x00", b"h\x00", pickles.text("storage"), pickles.text("0"), pickles.number(4), pickles.number(2**70)),
        *(pickles.name("torch", "Size"), pickles.name("torch._utils", "_rebuild_tensor_v2"), b"\x90", b"\x91", b"\x92"),
        *(pickles.name("collections", "OrderedDict"), pickles.name("os", "system"), pickles.tensor((4, 4), (4, 1))),
    )
)


@SHORT
@given(st.lists(OPCODES, max_size=12), st.booleans())
def test_any_program_of_opcodes(tmp_path_factory, program, legacy):
    output = tmp_path_factory.mktemp("pickle") / "output"
    output.mkdir()
    content = pickles.torch_file(b"\x80\x02" + b"".join(program) + b".", {"0": bytes(64)}, legacy)
    outcome = read("torch zip", content, ".pth", output)
    assert not outcome.is_fault, outcome


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3))


@SHORT
@given(st.data())
def test_any_value_in_the_place_of_any_other(tmp_path_factory, data):
    """In scores and in a configuration."""
    kind = data.draw(st.sampled_from(("scores.json", "config.json")))
    tree = json.loads(KINDS[kind].seeds()[0])
    place = tree
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    output = tmp_path_factory.mktemp("json") / "output"
    output.mkdir()
    outcome = read(kind, json.dumps(tree).encode(), ".json", output)
    assert not outcome.is_fault, outcome


def write_outside(file: pathlib.Path, output: pathlib.Path) -> None:
    (file.parent / "other").write_text("x")


def write_inside(file: pathlib.Path, output: pathlib.Path) -> None:
    (output / "other").write_text("x")


def start_a_program(file: pathlib.Path, output: pathlib.Path) -> None:
    import os

    os.system("true")


def run_code(file: pathlib.Path, output: pathlib.Path) -> None:
    exec("x = 1")


def fail(file: pathlib.Path, output: pathlib.Path) -> None:
    raise KeyError("x")


def swallow_memory(file: pathlib.Path, output: pathlib.Path) -> None:
    try:
        bytearray(1 << 33)
    except MemoryError:
        raise UserError("damaged") from None


def take_memory(file: pathlib.Path, output: pathlib.Path) -> None:
    bytearray(b"x") * (400 << 20)  # other threads may give back some of this meanwhile


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        (write_outside, "forbidden"),
        (write_inside, "read"),
        (start_a_program, "forbidden"),
        (run_code, "forbidden"),
        (fail, "traceback"),
        (swallow_memory, "memory"),
        (take_memory, "memory"),
    ],
)
def test_the_guard_sees_what_readers_must_not_do(output, reader, verdict):
    file = output.parent / "input"
    file.write_bytes(b"")
    assert guard.attempt(reader, file, output, guard.Bound(40 << 20, 1)).verdict == verdict
