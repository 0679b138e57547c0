"""Reading the files of a run directory without JAX."""

import subprocess
import sys

import pytest

from sean_jax.errors import UserError
from sean_jax.run import records


def test_nested_settings_become_one_list_with_their_groups():
    settings = {
        "optimizer": {"learning_rate": 1e-5, "schedule": {"name": "cosine"}},
        "method": "sean",
        "sean": {"ema_decay": 0.99, "learning_rate": 1e-3, "method": None},
        "seed": 0,
    }
    flat, groups = records.flatten(settings)
    assert flat == {
        **{"method": "sean", "seed": 0, "learning_rate": 1e-5, "name": "cosine"},
        **{"ema_decay": 0.99, "sean.learning_rate": 1e-3, "sean.method": None},
    }
    assert list(flat)[:2] == ["method", "seed"]
    assert groups == {
        **{"learning_rate": "optimizer", "name": "optimizer.schedule"},
        **{"ema_decay": "sean", "sean.learning_rate": "sean", "sean.method": "sean"},
    }


def test_an_incomplete_last_line_is_left_out_and_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert records.read_lines(path) == []
    path.write_text('{"step": 1, "a": 0.5}\n{"step": 2, "a"')
    assert records.read_lines(path) == [{"step": 1, "a": 0.5}]
    for line in ("nonsense", "[1]", '{"a": 1}', '{"step": null}', '{"step": 1, "a": NaN}', '{"step": true}'):
        path.write_text(f'{{"step": 1}}\n{line}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged"):
            records.read_lines(path)


def test_reading_needs_no_jax():
    program = "import sys; from sean_jax.run import records; sys.exit(str('jax' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr == "False\n"
