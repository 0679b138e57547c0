"""Pickles that nobody's ``torch.save`` wrote: nothing runs, and time and memory are in proportion to the file."""

import io
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from test_weights_torch_pickle import FORMATS, opcodes, tensor_pickle, write_torch_file

from sean_jax import weights
from sean_jax.errors import UserError
from sean_jax.weights.unpickler import Unpickler

DEEP = 100_000
GET_ALL = b"h\x00h\x01\x85R"  # calls memo 0 with memo 1


def memorized(maker: bytes, big: bytes, use: bytes) -> bytes:
    """A list of 3000 results of ``use``, after ``maker`` and ``big`` were put into the memo."""
    return b"\x80\x02](" + maker + b"q\x00" + big + b"q\x01" + use * 3000 + b"e."


NUMBERS = b"K\x01" * 3000
ENTRIES = b"}(" + b"".join(opcodes(i) + b"N" for i in range(3000)) + b"u"
HOSTILE = {
    "memo of 2³² entries": b"\x80\x02}r\xff\xff\xff\xff.",
    "text of 2⁶² bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "bytes of 2⁴⁰": b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b".",
    "byte array of 2⁴⁰": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "frame of 2⁴⁰ bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
    "number of 2³¹ bytes": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "nested tuple as a key": b"\x80\x02})" + b"\x85" * DEEP + b"Ns.",
    "nested tuple in a set": b"\x80\x04\x8f()" + b"\x85" * DEEP + b"\x90.",
    "nested lists": b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "long tuple as a key": b"\x80\x02}(" + NUMBERS + b"tNs.",
    "sizes": memorized(b"ctorch\nSize\n", b"](" + NUMBERS + b"e", GET_ALL),
    "dictionaries": memorized(b"ccollections\nOrderedDict\n", ENTRIES, GET_ALL),
    "unknown objects": memorized(b"cargparse\nNamespace\n", ENTRIES, b"h\x00)Rh\x01b"),
    "arguments": memorized(b"ca\nb\n", b"(" + NUMBERS + b"t", b"h\x00h\x01R"),
    "dimensions": tensor_pickle((1,) * 3000, (0,) * 3000),
    "size of 8000 digits": tensor_pickle((10**8000,) * 60, (0,) * 60),
    "storage of 8000 digits": tensor_pickle((1,), (1,), numel=10**8000),
    "number of 5000 digits in a name": tensor_pickle((1,), (1,)).replace(
        opcodes("x"), opcodes(f"features.{'9' * 5000}.running_mean")
    ),
    "terminal's commands in a name": tensor_pickle((1,), (1,)).replace(opcodes("x"), opcodes("\x1b[2J")),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_in_little_memory(tmp_path, kind, name):
    path = write_torch_file(tmp_path / "evil.pth", HOSTILE[name], bytes(16), kind)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"evil\.pth"):
            weights.read(path)
        assert tracemalloc.get_traced_memory()[1] < (4 << 20) + 300 * path.stat().st_size
    finally:
        tracemalloc.stop()


def entries(count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A state dict of equal tensors on one storage."""
    tensor = tensor_pickle(size, stride)[2:].removeprefix(b"}" + opcodes("x")).removesuffix(b"s.")
    return b"\x80\x02}(" + b"".join(opcodes(f"x{i}") + tensor for i in range(count)) + b"u."


def test_tied_weights_are_read_and_multiplied_ones_refused(tmp_path):
    storage = np.arange(4, dtype="<f4").tobytes()
    tied = weights.read(write_torch_file(tmp_path / "tied.pth", entries(3, (2, 2), (2, 1)), storage)).tensors
    assert {name: value.tolist() for name, value in tied.items()} == {f"x{i}": [[0, 1], [2, 3]] for i in range(3)}
    expanded = weights.read(write_torch_file(tmp_path / "one.pth", entries(1, (1000, 1000), (0, 0)), storage)).tensors
    assert (expanded["x0"] == 0).all()
    with pytest.raises(UserError, match="far larger than what the file holds"):
        weights.read(write_torch_file(tmp_path / "many.pth", entries(500, (1000, 1000), (0, 0)), storage))


def test_members_that_are_declared_larger_than_the_file_are_refused(tmp_path):
    path = write_torch_file(tmp_path / "evil.pth", tensor_pickle((2, 2), (2, 1)), bytes(16))
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")  # of the storage, in the directory
    content[entry + 20 : entry + 28] = struct.pack("<II", 2**31 - 1, 2**31 - 1)
    path.write_bytes(content)
    with pytest.raises(UserError, match="declares more than it holds"):
        weights.read(path)


@pytest.mark.parametrize("names", ["{}.conv1_1.weight", "{}.features.0.weight", "{}.0.weight"])
def test_very_many_networks_are_refused_at_once_and_some_of_them_named(tmp_path, names):
    tensor = tensor_pickle((2, 2), (2, 1))[2:].removeprefix(b"}" + opcodes("x")).removesuffix(b"s.")
    keys = b"".join(opcodes(names.format(f"n{i}")) + tensor for i in range(4000))
    path = write_torch_file(tmp_path / "many.pth", b"\x80\x02}(" + keys + b"u.", bytes(16))
    if names == "{}.0.weight":  # no convolution of three channels
        assert len(weights.read(path).tensors) == 4000
        return
    with pytest.raises(UserError, match=r"holds several networks \(n0\..*, n4\.[a-z0-9_.]+, …\); save the one"):
        weights.read(path)


def test_python_2s_ordered_dictionaries_and_attributes_are_read(tmp_path):
    """The pairs of an OrderedDict are its argument; a Namespace, or a module, has its tensors as attributes."""
    storage = np.arange(4, dtype="<f4").tobytes()
    tensor = tensor_pickle((4,), (1,))[2:].removeprefix(b"}" + opcodes("x")).removesuffix(b"s.")
    pairs = b"\x80\x02ccollections\nOrderedDict\n](](" + opcodes("weight") + tensor + b"ee\x85R."
    attributes = b"\x80\x02cargparse\nNamespace\n)R}" + opcodes("weight") + tensor + b"sb."
    for name, program in (("pairs", pairs), ("attributes", attributes)):
        found = weights.read(write_torch_file(tmp_path / f"{name}.pth", program, storage)).tensors
        assert {key: value.tolist() for key, value in found.items()} == {"weight": [0, 1, 2, 3]}


def test_the_opcodes_of_a_sound_file_are_known():
    """Python writes no opcode that is refused, in any protocol that torch.save may be given."""
    tree = {"a": [1, 2.5, None, True, "x", b"y", 2**70, (1,), (1, 2, 3, 4)], 3: {"b": {1, 2}}, (4, 5): []}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = Unpickler(io.BytesIO(pickle.dumps(tree, protocol))).load()
        assert found["a"][:9] == tree["a"][:9] or protocol < 3  # byte strings were calls then
        assert found[4, 5] == []
