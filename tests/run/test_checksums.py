"""Checkpoints that differ from their checksums."""

import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.errors import UserError
from sean_jax.run import checksums
from sean_jax.run.checkpoints import Checkpoints, is_finished


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three checkpoints, of which the second is the best; do not write to them."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {"a": 1}, {2: 50.0, 3: 40.0}.get(step))
    return folder


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def state(step: int) -> dict:
    return {"step": jnp.int32(step), "x": jnp.arange(300.0, dtype=jnp.float32) + step}


def restored(run) -> int:
    """The step that is restored, of which every bit is checked."""
    with Checkpoints(run) as checkpoints:
        step = checkpoints.latest_step
        assert step is not None
        found = checkpoints.restore(step, jax.eval_shape(lambda: state(step)))
    for name, value in state(step).items():
        assert np.asarray(found[name]).tobytes() == np.asarray(value).tobytes()
    return step


def files(checkpoint) -> list:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def test_whole_checkpoints_are_left_alone(run):
    assert checksums.set_aside_damaged(run / "checkpoints") == []
    assert checksums.set_aside_damaged(run / "nothing") == []
    assert restored(run) == 3
    for step in (1, 2, 3):
        check = ["sha256sum", "--check", "--quiet", checksums.FILE]
        subprocess.run(check, cwd=run / "checkpoints" / str(step), check=True)


def test_a_flipped_bit_or_a_cut_in_any_file_never_changes_a_value(run, tmp_path):
    """What no checksum covers holds no values; damage to anything else costs a step."""
    rng = np.random.default_rng(0)
    uncovered = {"_CHECKPOINT_METADATA", "commit_success.txt"}
    for number, file in enumerate(files(run / "checkpoints/3")):
        content = file.read_bytes()
        place = int(rng.integers(len(content)))
        flipped = content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :]
        name = file.relative_to(run / "checkpoints/3")
        for damaged in (flipped, content[:place]):
            copy = shutil.copytree(run, tmp_path / f"{number}", dirs_exist_ok=True)
            (copy / "checkpoints/3" / name).write_bytes(damaged)
            lines = checksums.set_aside_damaged(copy / "checkpoints")
            is_covered = str(name) not in uncovered
            assert len(lines) == is_covered
            assert restored(copy) == (2 if is_covered else 3)
            shutil.rmtree(copy)


def test_several_damaged_checkpoints_are_set_aside_and_kept(run):
    for step in (2, 3):
        (run / f"checkpoints/{step}/config/metadata").write_bytes(b"{}")
    (run / "checkpoints/3.damaged").mkdir()
    reason = "was damaged (config/metadata differs from its checksum) and renamed to"
    folder = run / "checkpoints"
    assert checksums.set_aside_damaged(folder) == [
        f"warning: checkpoint 3 {reason} {folder}/3.damaged.2; 2 steps are lost",
        f"warning: checkpoint 2 {reason} {folder}/2.damaged; 1 step is lost",
    ]
    assert restored(run) == 1
    assert (folder / "3.damaged.2/config/metadata").read_bytes() == b"{}"
    assert checksums.set_aside_damaged(folder) == []


def test_a_damaged_checkpoint_before_the_last_costs_no_step(run):
    """Here the best one: its score may be what is damaged."""
    (run / "checkpoints/2/metrics/metrics").write_text('{"mean_iou": 90}')
    (line,) = checksums.set_aside_damaged(run / "checkpoints")
    assert line.endswith("no step is lost")
    assert restored(run) == 3
    with Checkpoints(run, read_only=True) as checkpoints:
        assert checkpoints.best_step == 3


def test_nothing_is_renamed_where_no_checkpoint_is_whole(run):
    for step in (1, 2, 3):
        shutil.rmtree(run / f"checkpoints/{step}/state")
    before = files(run)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole \(3: state/\S+ is missing; 2: .*; 1: "):
        checksums.set_aside_damaged(run / "checkpoints")
    assert files(run) == before


def test_a_run_whose_last_checkpoint_is_damaged_is_not_finished(run):
    assert is_finished(run, 3)
    assert not is_finished(run, 4)
    (run / "checkpoints/3/config/metadata").write_bytes(b"")
    assert not is_finished(run, 3)


def test_a_checkpoint_of_an_earlier_version_has_no_checksums_and_is_read(run):
    (run / "checkpoints/3" / checksums.FILE).unlink()
    assert checksums.set_aside_damaged(run / "checkpoints") == []
    assert restored(run) == 3


def test_checksums_cut_short_do_not_pass_for_whole(run):
    """Even where the cut is between two lines."""
    file = run / "checkpoints/3" / checksums.FILE
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert str(checksums.damage(run / "checkpoints/3")).endswith("has no checksum")


def test_a_file_that_cannot_be_read_is_not_called_damaged(run, monkeypatch):
    def fail(*_):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(checksums, "_sha256", fail)
    with pytest.raises(UserError, match=r"Stale file handle.*it may be sound"):
        checksums.set_aside_damaged(run / "checkpoints")


def test_a_full_disk_while_checksums_are_written_leaves_no_checkpoint(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        monkeypatch.setattr(checksums, "write", fail)
        checkpoints.save(2, state(2), {})
        with pytest.raises(UserError, match="No space left on device"):
            checkpoints.wait()
    monkeypatch.undo()
    assert restored(tmp_path) == 1
