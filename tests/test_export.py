"""The exported program: the same prediction in a process that cannot import this project; what the command refuses."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import commands
import jax
import jax.export
import numpy as np
import pytest
from commands import assert_refused

from sean_jax import api
from sean_jax.data.label_spaces import LABEL_SPACES, LabelSpace
from sean_jax.run.trained import open_network

SIZE = (16, 32)  # of the finished run
LOADER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sean_jax":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import json, zipfile
import jax.export, numpy as np

with zipfile.ZipFile("network.zip") as file:
    network = jax.export.deserialize(bytearray(file.read("network.jax_export")))
    metadata = json.loads(file.read("metadata.json"))
predict = jax.jit(network.call)
for count in (1, 3):
    outputs = predict(np.load("images.npy")[:count])
    np.savez(f"outputs{count}.npz", **outputs)
try:
    import sean_jax
except ImportError as error:
    print(metadata["height"], metadata["width"], error)
"""


@pytest.fixture
def export(tmp_path):
    def run(file_limit=None, **flags) -> commands.Result:
        given = {"output": tmp_path / "network.zip"} | flags
        return commands.run(tmp_path / "output", "export", file_limit=file_limit, **given)

    return run


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)


def read(path: pathlib.Path) -> tuple[bytearray, dict]:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return bytearray(file.read("network.jax_export")), json.loads(file.read("metadata.json"))


def test_it_predicts_the_same_without_this_project(export, finished, images, tmp_path):
    result = export(workdir=finished)
    assert (result.code, result.said()) == (0, [])
    assert f"wrote {tmp_path / 'network.zip'}: {finished}, teacher, images of 32x16" in result.stdout

    np.save(tmp_path / "images.npy", images)
    python = [sys.executable, "-I", "-c", LOADER]  # -I: neither PYTHONPATH nor the working directory is searched
    loaded = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (loaded.returncode, loaded.stdout) == (0, "16 32 sean_jax is blocked\n"), loaded.stderr

    trained = open_network(str(finished))
    expected = jax.jit(trained.experiment.network().predict)(trained.params, images)
    own = api.load(finished)
    for count in (1, 3):
        with np.load(tmp_path / f"outputs{count}.npz") as outputs:
            assert outputs.keys() == {"classes", "logits", "attention"}
            assert outputs["classes"].dtype == np.uint8
            np.testing.assert_array_equal(outputs["classes"], [own(image).classes for image in images[:count]])
            np.testing.assert_allclose(outputs["logits"], expected.logits[:count], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(outputs["attention"], expected.maps["attention"][:count], rtol=1e-4)
    assert len(np.unique(own(images[0]).classes)) > 1


def test_the_metadata_say_how_to_use_it(export, finished, tmp_path):
    assert export(workdir=finished, network="student", platforms="cpu").code == 0
    program, metadata = read(tmp_path / "network.zip")
    assert LabelSpace.from_dict(metadata["label_space"]) == LABEL_SPACES["19"]
    assert (metadata["height"], metadata["width"]) == SIZE
    assert "uint8 RGB" in metadata["input"]
    assert metadata["input_convention"] == "bgr_mean"
    assert metadata["outputs"] == {
        "attention": "float32 [b, 2, 4]",
        "classes": "uint8 [b, 16, 32]",
        "logits": "float32 [b, 2, 4, 19]",
    }
    origin = {key: metadata[key] for key in ("network", "step", "method", "seed", "platforms")}
    assert origin == {"network": "student", "step": 4, "method": "sean", "seed": 0, "platforms": ["cpu"]}
    assert metadata["jax_version"] == jax.__version__

    assert str(commands.ROOT).encode() not in program  # no paths of the machine that it was made on
    before = (tmp_path / "network.zip").read_bytes()
    assert export(workdir=finished, network="student", platforms="cpu").code == 0
    assert (tmp_path / "network.zip").read_bytes() == before


def test_a_weights_file_with_another_size_platforms_and_precision(export, deeplab_file, tmp_path):
    flags = {"height": 40, "width": 50, "platforms": "cuda,cpu,tpu", "precision": "bfloat16"}
    result = export(weights=deeplab_file, **flags)
    assert (result.code, result.said()) == (0, [])
    program, metadata = read(tmp_path / "network.zip")
    loaded = jax.export.deserialize(program)
    assert loaded.platforms == ("cuda", "cpu", "tpu")
    assert str(loaded.in_avals) == "(ShapedArray(uint8[b,40,50,3]),)"
    outputs = loaded.call(np.zeros((2, 40, 50, 3), np.uint8))
    assert outputs["classes"].shape == (2, 40, 50)
    assert outputs["logits"].dtype == np.float32
    assert "bf16" in str(loaded.mlir_module())
    assert (metadata["network"], metadata["precision"], metadata["height"]) == ("teacher", "bfloat16", 40)


@pytest.mark.parametrize(
    ("flags", "parts", "code"),
    [
        ({"workdir": None}, ("either --workdir", "or --weights"), 1),
        ({"weights": "x.npz"}, ("either --workdir", "or --weights"), 1),
        ({"workdir": "/nowhere"}, ("--workdir=/nowhere", "config.json"), 1),
        ({"network": "discriminator"}, ("discriminator", "teacher, student"), 1),
        ({"output": None}, ("--output",), 2),
        ({"output": "/nowhere/network.zip"}, ("--output=/nowhere/network.zip", "/nowhere", "existing folder"), 1),
        ({"output": "network.onnx"}, ("--output=network.onnx", "'.onnx'", ".zip"), 1),
        ({"platforms": "cpu,gpu"}, ("--platforms=cpu,gpu", "cpu, cuda, rocm, tpu"), 1),
        ({"platforms": ""}, ("--platforms=", "cpu, cuda, rocm, tpu"), 1),
        ({"height": 8}, ("--height=8", "16"), 2),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path, finished, flags, parts, code):
    defaults = {"workdir": finished, "output": tmp_path / "network.zip"}
    given = {key: value for key, value in (defaults | flags).items() if value is not None}
    assert_refused(commands.run(tmp_path / "output", "export", **given), "export", *parts, code=code)
    assert os.listdir(tmp_path) == ["output"]


def test_a_full_disk_is_one_line_and_keeps_the_old_file(export, finished, tmp_path):
    (tmp_path / "kept").mkdir()
    output = tmp_path / "kept" / "network.zip"
    output.write_bytes(b"old")
    assert_refused(export(workdir=finished, output=output, file_limit=5000), "export", "cannot write", "free space")
    assert os.listdir(output.parent) == ["network.zip"]
    assert output.read_bytes() == b"old"
