"""Tests that the files of a run directory are read."""

import json

import pytest

from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.run import records


def test_nested_settings_are_flattened_with_their_groups(tmp_path):
    settings = {"optimizer": {"learning_rate": 1e-5}, "method": "sean", "sean": {"ema_decay": 0.99}, "seed": 0}
    settings |= {"steps": 4, "source": "gta5", "target": "cityscapes"}
    content = {"settings": settings, "label_space": LABEL_SPACES["19"].to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = records.read_configuration(tmp_path / "config.json")
    common = {"method": "sean", "seed": 0, "steps": 4, "source": "gta5", "target": "cityscapes"}
    assert found.settings == common | {"learning_rate": 1e-5, "ema_decay": 0.99}
    assert list(found.settings)[: len(common)] == list(common)
    assert found.groups == {"learning_rate": "optimizer", "ema_decay": "sean"}


def test_an_incomplete_last_line_is_ignored_and_a_damaged_line_is_reported(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert records.read_lines(path) == []
    path.write_text('{"step": 1, "a": 0.5}\n{"step": 2, "a"')
    assert records.read_lines(path) == [{"step": 1, "a": 0.5}]
    for line in ("nonsense", "[1]", '{"a": 1}', '{"step": null}', '{"step": 1, "a": NaN}', '{"step": true}'):
        path.write_text(f'{{"step": 1}}\n{line}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged"):
            records.read_lines(path)
