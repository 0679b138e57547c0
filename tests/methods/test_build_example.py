"""Tests the method that BUILD.md shows: it works as printed."""

import importlib.util
import pathlib
import re
import sys

import builders
import steps

from sean_jax.methods import METHODS

BUILD = pathlib.Path(__file__).parents[2] / "BUILD.md"


def test_the_printed_method_trains_alike_on_one_and_four_devices(tmp_path, monkeypatch):
    (printed,) = [code for code in re.findall(r"```python\n(.*?)```", BUILD.read_text(), re.S) if "MinEntropy" in code]
    assert printed.count("\n") <= 40
    (tmp_path / "min_entropy.py").write_text(printed)
    spec = importlib.util.spec_from_file_location("min_entropy", tmp_path / "min_entropy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "min_entropy", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "min_entropy", module.MinEntropy)
    method = builders.method("min_entropy", entropy_weight=0.5, learning_rate=1e-3)
    (one, metrics), (four, _) = (steps.run(method, steps.batch("min_entropy"), devices=n) for n in (1, 4))
    assert 0 < metrics["train/entropy"] <= 1.4  # log 4
    assert steps.relative(four.params, one.params) < 1e-5
