"""Tests that the right network is found in a checkpoint, whatever wraps it and lies beside it."""

import argparse
import collections
import io
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
from test_weights_torch_pickle import write_torch_file

from sean_jax import weights
from sean_jax.errors import UserError
from sean_jax.weights.unwrap import unwrap

VGG = {f"features.{index}.weight": (4, 3, 3, 3) for index in (0, 2, 5)} | {"classifier.0.weight": (4, 64)}


def under(prefix, names=VGG):
    return {prefix + name: shape for name, shape in names.items()}


PLAIN = {name: name for name in VGG}
WRAPPED = {
    "data_parallel": under("module."),
    "data_parallel_in_part": {name.replace("features.", "features.module."): shape for name, shape in VGG.items()},
    "compile": under("_orig_mod."),
    "compile_of_data_parallel": under("_orig_mod.module."),
    "compile_in_part": {name.replace("features.", "features._orig_mod."): shape for name, shape in VGG.items()},
    "fsdp": under("_fsdp_wrapped_module.", {n.replace(".0.", ".0._checkpoint_wrapped_module."): VGG[n] for n in VGG}),
    "averaged": {"n_averaged": (), **under("module.")},
    "lightning": {"state_dict/criterion.weight": (19,), **under("state_dict/model.")},
    "backbone": under("state_dict/backbone.") | {"state_dict/decode_head.conv_seg.weight": (19, 4, 1, 1)},
    "hugging_face": under("timm_model."),
    "beside_tensors": {"rng_state": (5000,), "epoch": (), "optimizer/0/exp_avg": (4, 3, 3, 3)} | under("model_state/"),
    "own_word": under("seg_net/inner.vgg."),
    "perceptual_loss": under("state_dict/net.") | under("state_dict/perceptual_loss.vgg."),
    "whole_module": {
        f"_modules/{'/_modules/'.join(name.split('.')[:2])}/_parameters/weight": shape for name, shape in VGG.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_are_seen_through(name):
    found = unwrap(WRAPPED[name])
    assert found.said.startswith("read from ")
    shapes = {new: WRAPPED[name][old] for old, new in found.names.items()}
    assert {new: shapes[new] for new in VGG} == VGG


def test_a_plain_state_dict_is_taken_without_a_word():
    assert unwrap(VGG) == (PLAIN, "")


def test_convolutions_without_the_name_of_their_list():
    """What ``torch.save(vgg16().features.state_dict())`` writes, and the same with a prefix."""
    bare = {name.removeprefix("features."): shape for name, shape in VGG.items() if name[0] == "f"}
    for shapes in (bare, under("encoder.", bare)):
        assert set(unwrap(shapes).names.values()) == {name for name in VGG if name[0] == "f"}
    assert unwrap({"0.weight": (8, 3, 4, 4), "2.weight": (8, 8, 4, 4)}).names["0.weight"] == "0.weight"  # others' stay


@pytest.mark.parametrize(
    ("others", "best"),
    [
        (("student/", "model/", "ema/"), "teacher/"),
        (("state_dict/", "model/"), "model_ema/"),
        (("state_dict/",), "state_dict_ema/"),
        (("model/", "student/"), "state_dict/"),
        (("state_dict/online_model.",), "state_dict/ema_model."),
        (("state_dict/imnet_model.", "state_dict/model."), "state_dict/ema_model."),
        (("student.module.",), "teacher.module."),
        (("module.",), ""),
    ],
)
def test_of_several_networks_the_one_that_is_usually_evaluated(others, best):
    shapes = {name: shape for prefix in (*others, best) for name, shape in under(prefix).items()}
    found = unwrap(shapes)
    assert found.names == {best + name: name for name in VGG}
    assert found.said.startswith(f"read from {best}features.0.weight")
    assert all(f"not from {other}features.0.weight" in found.said for other in others)


def test_the_larger_of_two_alike_networks_and_none_of_two_equal_ones():
    whole = {**VGG, "aconv.weight": (1, 4, 1, 1)}
    assert set(unwrap(under("a/") | under("b/", whole)).names) == set(under("b/", whole))
    with pytest.raises(
        UserError, match=r"x\.pth holds several networks \(a/features\.0\.weight, b/features\.0\.weight"
    ):
        unwrap(under("a/") | under("b/"), "x.pth")


def test_without_a_known_network_the_usual_dictionary_is_taken():
    assert unwrap({"optimizer/0": (2,), "student/module.w": (2,), "teacher/module.w": (2,)}).names == {
        "teacher/module.w": "w"
    }
    assert unwrap({"optimizer/state/0/exp_avg": (2,)}).names == {}


# Other objects beside the weights


class Storage:
    """What PyTorch's pickler writes as a persistent id."""


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return ("storage", global_of("torch", "FloatStorage"), "0", "cpu", 4) if isinstance(obj, Storage) else None


class Tensor:
    def __reduce__(self):
        rebuild = global_of("torch._utils", "_rebuild_tensor_v2")
        return rebuild, (Storage(), 0, (2, 2), (2, 1), False, collections.OrderedDict())


def global_of(module: str, name: str):
    """A class that a pickle names as one of a package that is not installed."""
    for i in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:i])
        sys.modules.setdefault(part, types.ModuleType(part))
    if not hasattr(sys.modules[module], name):
        setattr(sys.modules[module], name, type(name, (), {"__module__": module, "__qualname__": name}))
    return getattr(sys.modules[module], name)


@pytest.fixture
def objects():
    before = set(sys.modules)
    yield {
        "numpy_number": np.float64(43.2),
        "numpy_array": np.arange(3),
        "random_state": np.random.RandomState(0).get_state(),
        "namespace": argparse.Namespace(lr=1e-3, nested=argparse.Namespace(a=[1])),
        "path": pathlib.PurePosixPath("/x"),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2], 5),
        "counter": collections.Counter("ab"),
        "set": {1, 2},
        "frozen_set": frozenset({1}),
        "complex": 1j,
        "bytes": b"\xff",
        "own_class": global_of("mmengine.logging.history_buffer", "HistoryBuffer")(),
        "function": np.mean,
        "class": global_of("torch.optim.adam", "Adam"),
        "key": {pathlib.PurePosixPath("/x"): 1},
    }
    for made in set(sys.modules) - before:  # by global_of
        del sys.modules[made]


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_any_object_may_lie_beside_the_weights(tmp_path, kind, objects):
    storage = np.arange(4, dtype="<f4").tobytes()
    for protocol in (2, 4):
        for name, value in objects.items():
            buffer = io.BytesIO()
            Pickler(buffer, protocol).dump({"state_dict": {"x": Tensor()}, "other": value, "args": [value, value]})
            tensors = weights.read(write_torch_file(tmp_path / "x.pth", buffer.getvalue(), storage, kind)).tensors
            assert list(tensors) == ["x"], name
            np.testing.assert_array_equal(tensors["x"], [[0, 1], [2, 3]])


@pytest.mark.parametrize("wrap", [collections.defaultdict, argparse.Namespace], ids=lambda wrap: wrap.__name__)
def test_weights_inside_other_objects_are_found(tmp_path, wrap, objects):
    inner = {"state_dict": {"x": Tensor()}}
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(wrap(list, inner) if wrap is collections.defaultdict else wrap(**inner))
    path = write_torch_file(tmp_path / "x.pth", buffer.getvalue(), np.arange(4, dtype="<f4").tobytes())
    assert list(weights.read(path).tensors) == ["x"]


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pth.tar"])
def test_files_of_pytorch_have_other_extensions_too(tmp_path, suffix):
    fixture = pathlib.Path(__file__).parent / "fixtures/sean.pth"
    (tmp_path / f"x{suffix}").write_bytes(fixture.read_bytes())
    assert list(weights.read(tmp_path / f"x{suffix}").tensors) == list(weights.read(fixture).tensors)
