"""Tests of weights files: formats, metadata, errors and atomic writes."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from sean_jax import weights
from sean_jax.errors import UserError
from sean_jax.weights import files

FIXTURES = Path(__file__).parent / "fixtures"
METADATA = {
    "format": "sean_jax",
    "version": 1,
    "architecture": {"fc_dilation": 4},
    "classes": {"names": ["road", "Straße"]},
}
OUTPUTS = ["out.safetensors", "out.npz"]


def some_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 4)).astype(np.float32)
    a[0, :3] = np.nan, np.inf, -0.0
    return {
        "b.weight": a,
        "a.transposed": a.T,
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 2), np.float32),
    }


@pytest.mark.parametrize("output", OUTPUTS)
def test_round_trip_is_bitwise_exact(tmp_path, output):
    weights.write(tmp_path / output, some_tensors(), METADATA)
    file = weights.read(tmp_path / output)
    assert file.metadata == METADATA
    assert set(file.tensors) == set(some_tensors())
    for name, want in some_tensors().items():
        assert file.tensors[name].shape == want.shape
        assert file.tensors[name].tobytes() == want.tobytes(), name  # tobytes uses C order for any memory layout


@pytest.mark.parametrize("output", OUTPUTS)
def test_files_without_metadata_have_none(tmp_path, output):
    weights.write(tmp_path / output, {"x": np.ones(2, np.float32)}, {})
    file = weights.read(tmp_path / output)
    assert file.metadata == {}
    assert list(file.tensors) == ["x"]


def test_bfloat16_safetensors_become_float32():
    tensors = weights.read(FIXTURES / "sean_bfloat16.safetensors").tensors
    with np.load(FIXTURES / "sean.npz") as expected:
        assert set(tensors) == set(expected.files)
        for name, value in tensors.items():
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, expected[name], rtol=2**-8)


def test_other_float_types_and_byte_orders_become_float32(tmp_path):
    values = np.array([1.5, -2.0])
    np.savez(
        tmp_path / "x.npz",
        half=values.astype(np.float16),
        double=values,
        swapped=values.astype(">f4"),
        ids=np.arange(2),
    )
    tensors = weights.read(tmp_path / "x.npz").tensors
    for name in ("half", "double", "swapped"):
        assert tensors[name].dtype == np.dtype("=f4")
        np.testing.assert_array_equal(tensors[name], values)
    assert tensors["ids"].dtype == np.int64


def test_wrapper_prefixes_are_dropped_only_if_all_names_have_them(tmp_path):
    ones = np.ones(1, np.float32)
    np.savez(tmp_path / "all.npz", **{"model.module.module.x": ones, "model.module.module.y": ones})
    np.savez(tmp_path / "some.npz", **{"module.x": ones, "y": ones})
    assert list(weights.read(tmp_path / "all.npz").tensors) == ["x", "y"]
    assert list(weights.read(tmp_path / "some.npz").tensors) == ["module.x", "y"]


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_pickled_objects_in_npz_are_refused(tmp_path):
    canary = tmp_path / "canary"
    np.savez(tmp_path / "evil.npz", x=np.array([_Touch(canary)], dtype=object))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(_Touch(canary)))
    for name in ("evil.npz", "pickle.npz"):
        with pytest.raises(UserError, match="damaged or not a"):
            weights.read(tmp_path / name)
    assert not canary.exists()


def test_metadata_that_is_not_a_json_object_is_refused(tmp_path):
    for text in ("[1]", "{", "null"):
        np.savez(tmp_path / "x.npz", __sean_jax__=np.array(text))
        (tmp_path / "x.safetensors").write_bytes(safetensors.numpy.save({"x": np.ones(1)}, {"sean_jax": text}))
        for name in ("x.npz", "x.safetensors"):
            with pytest.raises(UserError, match="damaged"):
                weights.read(tmp_path / name)


def test_read_reports_bad_paths(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pth is not a file"):
        weights.read(tmp_path / "absent.pth")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(UserError, match=r"'\.h5'.*\.pth, \.pt, \.safetensors, \.npz"):
        weights.read(tmp_path / "weights.h5")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="not a file"):
        weights.read(tmp_path / "folder.npz")


def test_write_reports_bad_paths(tmp_path):
    for name, message in (
        ("x.pth", r"'\.pth'.*\.safetensors or \.npz"),
        ("x", "extension ''"),
        ("no/x.npz", "not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            weights.write(tmp_path / name, some_tensors(), {})
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        weights.write(tmp_path / "folder.npz", some_tensors(), {})
    assert os.listdir(tmp_path) == ["folder.npz"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, output, failing, error):
    weights.write(tmp_path / output, some_tensors(), METADATA)
    before = (tmp_path / output).read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(type(error)):
        weights.write(tmp_path / output, {"x": np.ones(1, np.float32)}, {})
    assert os.listdir(tmp_path) == [output]
    assert (tmp_path / output).read_bytes() == before


def test_written_files_have_default_permissions(tmp_path):
    (tmp_path / "other").touch()
    weights.write(tmp_path / "out.npz", some_tensors(), {})
    assert (tmp_path / "out.npz").stat().st_mode == (tmp_path / "other").stat().st_mode
