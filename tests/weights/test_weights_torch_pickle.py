"""Tests that files of ``torch.save`` are read exactly and that a pickle can do nothing else."""

import builtins
import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sean_jax import weights
from sean_jax.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
FORMATS = ["zip", "legacy"]


def write_torch_file(path: Path, payload: bytes, storage: bytes = b"", kind: str = "zip") -> Path:
    """Writes a file like torch.save's with a pickle and one float storage under the key "0"."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
            archive.writestr("archive/data/0", storage)
    else:
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
        stream = b"".join(pickle.dumps(part, 2) for part in head) + payload + pickle.dumps(["0"], 2)
        path.write_bytes(stream + struct.pack("<q", len(storage) // 4) + storage)
    return path


def opcodes(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]  # without the protocol and the stop


def tensor_pickle(size, stride, offset=0, numel=4, function=b"ctorch._utils\n_rebuild_tensor_v2\n") -> bytes:
    """The pickle of a state dict {"x": tensor}, assembled by hand so that it can be invalid."""
    storage = b"(" + opcodes("storage") + b"ctorch\nFloatStorage\n" + opcodes("0") + opcodes("cpu") + opcodes(numel)
    storage += b"tQ"
    arguments = b"(" + storage + opcodes(offset) + opcodes(size) + opcodes(stride) + b"\x89Nt"
    return b"\x80\x02}" + opcodes("x") + function + arguments + b"Rs."


@pytest.mark.parametrize("suffix", ["", "_legacy"])
@pytest.mark.parametrize("name", ["sean", "odd", "checkpoint"])
def test_reads_pytorch_files(name, suffix):
    tensors = weights.read(FIXTURES / f"{name}{suffix}.pth").tensors
    with np.load(FIXTURES / f"{name}.npz") as expected:
        assert list(tensors) == expected.files
        for key in expected.files:
            want = expected[key]
            if want.dtype.kind == "f":
                want = want.astype(np.float32)
            assert tensors[key].dtype == want.dtype, key
            assert tensors[key].flags.c_contiguous, key
            np.testing.assert_array_equal(tensors[key], want, err_msg=key, strict=True)


def test_floating_point_is_converted_exactly():
    tensors = weights.read(FIXTURES / "odd.pth").tensors
    assert {tensors[name].dtype for name in ("half", "bfloat16", "double")} == {np.dtype(np.float32)}
    assert tensors["half"][0, 0] == 1.5
    assert tensors["bfloat16"][1, 0] == 65536.0  # 65504 rounded to 8 bits
    assert tensors["double"][0, 0] == np.float32(0.5)
    np.testing.assert_array_equal(tensors["strided_in_shared"], [[4, 7], [11, 14], [18, 21]])
    np.testing.assert_array_equal(tensors["transposed"], [[0, 3], [1, 4], [2, 5]])


def test_the_teacher_is_read_from_several_networks():
    tensors = weights.read(FIXTURES / "checkpoint.pth").tensors
    assert list(tensors) == ["weight", "bias"]  # not the optimiser's, and without DataParallel's prefix


def test_reads_files_of_older_pytorch_and_python_2(tmp_path):
    payload = tensor_pickle((2, 2), (2, 1), function=b"ctorch._utils\n_rebuild_tensor\n")
    payload = payload.replace(opcodes("x"), b"U\x01x")  # a byte string, as Python 2 wrote
    storage = np.arange(4, dtype="<f4").tobytes()
    for kind in FORMATS:
        tensors = weights.read(write_torch_file(tmp_path / f"{kind}.pth", payload, storage, kind)).tensors
        np.testing.assert_array_equal(tensors["x"], [[0, 1], [2, 3]])


class _Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("function", "code", "name"),
    [
        (os.system, "touch {}", f"{os.name}.system"),
        (builtins.eval, "open({!r}, 'w').close()", "builtins.eval"),
        (builtins.exec, "open({!r}, 'w').close()", "builtins.exec"),
    ],
)
def test_calls_are_refused_and_not_executed(tmp_path, kind, function, code, name):
    canary = tmp_path / "canary"
    # Protocol 4 keeps the names as they are; 2 would map builtins to Python 2's.
    payload = pickle.dumps({"weight": _Call(function, code.format(str(canary)))}, 4)
    path = write_torch_file(tmp_path / "evil.pth", payload, kind=kind)
    with pytest.raises(UserError, match=name):
        weights.read(path)
    assert not canary.exists()
    pickle.loads(payload)  # Python's own unpickler does make the call
    assert canary.exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "OrderedDict.fromkeys.__class__"),
        ("torch", "FloatStorage.__class__.__base__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "__builtins__"),
        ("numpy", "load"),
        ("torch", "load"),
        ("torch.nn.modules.linear", "Linear"),
    ],
)
def test_only_names_on_the_allow_list_resolve(tmp_path, kind, module, name):
    payload = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93."
    with pytest.raises(UserError, match=f"{module}.{name}".replace(".", r"\.")):
        weights.read(write_torch_file(tmp_path / "evil.pth", payload, kind=kind))


@pytest.mark.parametrize(
    "target",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nSize\n",
        b"ctorch\nFloatStorage\n",
    ],
)
@pytest.mark.parametrize("state", [{"__call__": 1, "_call": 1}, (None, {"_call": 1, "get": 1, "__len__": 1})])
def test_a_pickle_cannot_modify_allowed_objects(tmp_path, target, state):
    payload = b"\x80\x02" + target + opcodes(state) + b"b."
    with pytest.raises(UserError, match="damaged"):
        weights.read(write_torch_file(tmp_path / "evil.pth", payload))
    test_reads_pytorch_files("odd", "")


def test_the_attributes_of_a_state_dict_are_dropped(tmp_path):
    payload = b"\x80\x02ccollections\nOrderedDict\n)R" + opcodes({"get": 1, "_metadata": {}}) + b"b."
    with pytest.raises(UserError, match="expected a state dict"):
        weights.read(write_torch_file(tmp_path / "empty.pth", payload))


def test_the_parameters_of_a_whole_module_are_read():
    """``torch.save(network)`` instead of its state dict."""
    tensors = weights.read(FIXTURES / "whole_module.pth").tensors
    assert {name: value.shape for name, value in tensors.items()} == {"weight": (1, 1), "bias": (1,)}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "tensor",
    [
        {"size": (5,), "stride": (1,)},
        {"size": (4,), "stride": (1,), "offset": 1},
        {"size": (2, 2), "stride": (3, 1)},
        {"size": (2,), "stride": (1,), "offset": -1},
        {"size": (2,), "stride": (-1,), "offset": 3},
        {"size": (-2, -2), "stride": (1, 1)},
        {"size": (2,), "stride": ()},
        {"size": (1,), "stride": (1,), "offset": 2**62},
        {"size": (2**40,), "stride": (0,)},
        {"size": (5,), "stride": (1,), "numel": 5},
        {"size": (1,), "stride": (1,), "numel": -4},
        {"size": ("1",), "stride": (1,)},
    ],
    ids=str,
)
def test_tensors_outside_their_storage_are_refused(tmp_path, kind, tensor):
    path = write_torch_file(tmp_path / "evil.pth", tensor_pickle(**tensor), b"\0" * 16, kind)
    with pytest.raises(UserError, match=r"evil\.pth is damaged"):
        weights.read(path)


def test_a_tensor_may_end_at_the_end_of_its_storage(tmp_path):
    storage = np.arange(4, dtype="<f4").tobytes()
    path = write_torch_file(tmp_path / "good.pth", tensor_pickle((2, 2), (2, 1)), storage)
    np.testing.assert_array_equal(weights.read(path).tensors["x"], [[0, 1], [2, 3]])


@pytest.mark.parametrize("name", ["sean.pth", "sean_legacy.pth", "odd.npz", "sean_bfloat16.safetensors"])
def test_truncated_and_damaged_files_are_refused(tmp_path, name):
    content = (FIXTURES / name).read_bytes()
    path = tmp_path / name
    for length in (0, 1, 4, 11, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged or not a"):
            weights.read(path)
    path.write_bytes(b"\xff" * 200)
    with pytest.raises(UserError, match="damaged or not a"):
        weights.read(path)


def test_a_changed_byte_raises_only_user_errors(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("odd.pth", "odd_legacy.pth"):
        content = np.frombuffer((FIXTURES / name).read_bytes(), np.uint8)
        for _ in range(200):
            damaged = content.copy()
            damaged[rng.integers(len(damaged))] ^= rng.integers(1, 256, dtype=np.uint8)
            path = tmp_path / name
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(UserError):
                weights.read(path)


def test_compressed_entries_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle((4,), (1,)))
        archive.writestr("archive/data/0", b"\0" * 16)
    with pytest.raises(UserError, match="compressed"):
        weights.read(tmp_path / "bomb.pth")


def test_another_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "weights")
    with pytest.raises(UserError, match=r"no data\.pkl"):
        weights.read(tmp_path / "other.pth")


def test_a_big_endian_file_is_refused(tmp_path):
    path = write_torch_file(tmp_path / "big.pth", tensor_pickle((4,), (1,)), b"\0" * 16)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(UserError, match="big-endian"):
        weights.read(path)


def test_a_dictionary_that_contains_itself_is_refused(tmp_path):
    tree: dict = {}
    tree["model"] = tree
    with pytest.raises(UserError, match="expected a state dict"):
        weights.read(write_torch_file(tmp_path / "loop.pth", pickle.dumps(tree, 2)))
