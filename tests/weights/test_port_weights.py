"""Tests of the command ``port_weights``: its output files, messages and errors."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import commands
import numpy as np
import pytest

from sean_jax import port_weights, weights
from sean_jax.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).parents[2]


def command(*arguments, **options) -> commands.Result:
    with tempfile.TemporaryDirectory() as folder:
        return commands.run(Path(folder), "port_weights", *map(str, arguments), **options)


def assert_refused(result, *parts, code=1):
    commands.assert_refused(result, "port_weights", *parts, code=code)


def test_sean_is_ported_without_changes(tmp_path):
    result = command(f"--input={FIXTURES / 'sean_legacy.pth'}", f"--output={tmp_path / 'out.npz'}")
    assert (result.code, result.stderr) == (0, "")
    assert "loaded (39): features.0.weight" in result.stdout
    assert "missing (0): none" in result.stdout
    assert "unexpected (0): none" in result.stdout
    file = weights.read(tmp_path / "out.npz")
    assert file.metadata == {
        "format": "sean_jax",
        "version": 1,
        "architecture": "reference",
        "input_convention": "bgr_mean",
    }
    with np.load(FIXTURES / "sean.npz") as expected:
        assert list(file.tensors) == expected.files
        for name in expected.files:
            assert file.tensors[name].tobytes() == expected[name].tobytes()


@pytest.mark.parametrize(
    ("name", "convention", "conv5_3", "unexpected"),
    [
        ("vgg16_torchvision.pth", "rgb_normalized", "features.28.weight", "classifier.0.weight"),
        ("vgg16_caffe_legacy.pth", "bgr_mean", "conv5_3.weight", "score_fr.weight"),
    ],
)
def test_vgg_is_written_under_the_authors_names_with_its_convention(tmp_path, name, convention, conv5_3, unexpected):
    given = convention if "torchvision" in name else None  # its names do not tell
    report = port_weights.port(str(FIXTURES / name), str(tmp_path / "out.safetensors"), input_convention=given)
    assert unexpected in report.unexpected
    assert "aconv.weight" in report.missing
    file = weights.read(tmp_path / "out.safetensors")
    assert len(file.tensors) == 26
    np.testing.assert_array_equal(file.tensors["features.27.weight"], weights.read(FIXTURES / name).tensors[conv5_3])
    assert weights.identify(file) == "vgg16_sean"
    assert weights.metadata(file) == {"format": "sean_jax", "version": 1, "input_convention": convention}
    port_weights.port(str(tmp_path / "out.safetensors"), str(tmp_path / "again.npz"))  # and keeps it
    assert weights.read(tmp_path / "again.npz").metadata["input_convention"] == convention


def test_port_reads_the_requested_network_of_a_run(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    (workdir / "checkpoints").mkdir(parents=True)
    (workdir / "config.json").write_text("{}")
    metadata = {"format": "sean_jax", "version": 1, "input_convention": "rgb_normalized", "height": 64}
    tensors = weights.read(FIXTURES / "sean.npz").tensors
    asked = []

    def read_run(directory, network):
        asked.append((directory, network))
        changed = {name: value + np.float32(len(asked)) for name, value in tensors.items()}
        return weights.WeightsFile(changed, metadata, directory)

    monkeypatch.setattr(port_weights, "read_run", read_run)
    for network in (None, "student"):
        port_weights.port(str(workdir), str(tmp_path / f"{network}.npz"), network)
    assert asked == [(str(workdir), None), (str(workdir), "student")]
    for number, name in enumerate(("None", "student"), 1):
        file = weights.read(tmp_path / f"{name}.npz")
        assert file.metadata == metadata
        assert file.tensors.keys() == tensors.keys()
        np.testing.assert_array_equal(file.tensors["features.0.weight"], tensors["features.0.weight"] + number)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        port_weights.port(str(tmp_path), str(tmp_path / "out.npz"))


def test_network_flag_requires_a_run(tmp_path):
    with pytest.raises(UserError, match="--network=student"):
        port_weights.port(str(FIXTURES / "sean.pth"), str(tmp_path / "out.npz"), "student")


@pytest.mark.parametrize(
    ("source", "output", "parts"),
    [
        ("sean.pth", "out.pth", ("'.pth'", ".safetensors or .npz", "load_file")),
        ("whole_module.pth", "out.npz", ("holds weight, bias; expected",)),
        ("odd.pth", "out.npz", ("holds half, bfloat16", "expected")),
        ("absent.pth", "out.npz", ("absent.pth is not a file",)),
    ],
)
def test_bad_input_is_reported_and_writes_no_file(tmp_path, source, output, parts):
    assert_refused(command(f"--input={FIXTURES / source}", f"--output={tmp_path / output}"), *parts)
    assert os.listdir(tmp_path) == []


def test_batch_normalisation_is_folded(tmp_path):
    report = port_weights.port(str(FIXTURES / "vgg16_bn.safetensors"), str(tmp_path / "out.npz"))
    assert "batch normalisation folded into the convolutions" in str(report)
    assert weights.identify(weights.read(tmp_path / "out.npz")) == "vgg16_sean"


def test_both_flags_are_required():
    assert_refused(command("--input=x.pth"), "--output", code=2)


@pytest.mark.parametrize("output", ["out.safetensors", "out.npz"])
def test_a_full_disk_leaves_no_files(tmp_path, output):
    arguments = (f"--input={FIXTURES / 'sean.pth'}", f"--output={tmp_path / output}")
    assert_refused(command(*arguments, file_limit=2000), "cannot write", "free space")
    assert os.listdir(tmp_path) == []
    assert command(*arguments).code == 0
    before = (tmp_path / output).read_bytes()
    assert_refused(command(*arguments, file_limit=2000), "cannot write")
    assert os.listdir(tmp_path) == [output]
    assert (tmp_path / output).read_bytes() == before


def test_porting_a_file_imports_neither_pytorch_nor_tensorflow(tmp_path):
    arguments = [str(FIXTURES / "sean.pth"), str(tmp_path / "out.npz")]
    code = (
        f"import sys; from sean_jax.port_weights import port; port(*{json.dumps(arguments)}); "
        "sys.exit(bool({'torch', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False).returncode == 0
