"""The files of a run directory: whole or not there, and what of them a resumed run keeps."""

import dataclasses
import json
import os

import pytest

from sean_jax.config import Config
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.run import directory as rundir

RUN = rundir.Run(
    Config(steps=4, source="gta5", target="cityscapes", initialization="scratch", input_convention="bgr_mean"),
    LABEL_SPACES["19"],
)


def changed(**settings) -> rundir.Run:
    return RUN._replace(config=dataclasses.replace(RUN.config, **settings))


def test_what_was_written_is_read_again(tmp_path):
    workdir = tmp_path / "deep" / "run"
    rundir.check(workdir, RUN)
    assert not workdir.exists()
    rundir.create(workdir, RUN, {})
    assert rundir.load(workdir) == RUN
    rundir.check(workdir, RUN)
    assert os.listdir(workdir) == ["config.json"]


def test_a_run_of_another_configuration_is_refused_and_the_differences_are_named(tmp_path):
    rundir.create(tmp_path, RUN, {})
    other = changed(seed=1, noise_std=0.1)._replace(label_space=LABEL_SPACES["16"])
    with pytest.raises(UserError, match=r"noise_std: 25\.5 → 0\.1; seed: 0 → 1; the label space") as error:
        rundir.check(tmp_path, other)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["source_dir", "target_dir", "data_dir"])
def test_places_may_differ(tmp_path, place):
    rundir.create(tmp_path, RUN, {})
    rundir.check(tmp_path, changed(**{place: "/elsewhere"}, loader="grain"))


def test_every_other_setting_may_not_differ(tmp_path):
    rundir.create(tmp_path, RUN, {})
    free = {"source_dir", "target_dir", "data_dir", "loader"}
    for name in {field.name for field in dataclasses.fields(Config)} - free:
        with pytest.raises(UserError, match=f"{name}: "):
            rundir.check(tmp_path, changed(**{name: "something else"}))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": {"colour": 1}, "label_space": {}}', "null"])
def test_a_damaged_configuration_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is not a configuration"):
        rundir.load(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is not a configuration"):
        rundir.check(tmp_path, RUN)


def test_a_configuration_that_cannot_be_written_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        rundir.create(tmp_path / "run", RUN, {})
    assert os.listdir(tmp_path) == []


def test_json_is_the_old_or_the_new(tmp_path, monkeypatch):
    rundir.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        rundir.write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_metrics_past_the_restored_step_and_a_line_that_was_cut_off_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 2, "a"')
    file = rundir.MetricsFile(path, 2)
    assert path.read_text() == '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n'
    file.write(3, {"a": 0.1})
    assert path.read_text().endswith('{"step": 3, "a": 0.1}\n')  # at once, not when the file is closed
    file.close()
    rundir.MetricsFile(path, 0).close()
    assert path.read_text() == ""


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"a": 1}', '{"step": null}'])
def test_a_damaged_line_of_metrics_is_named_and_the_file_kept(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        rundir.MetricsFile(path, 5)
    assert path.read_text() == f'{{"step": 1}}\n{line}\n'
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_directory_is_one_process_at_a_time(tmp_path):
    refused = pytest.raises(UserError, match="another process is training")
    with rundir.claimed(tmp_path), refused, rundir.claimed(tmp_path):
        pass
    with rundir.claimed(tmp_path):
        pass
