"""Tests which checkpoints are kept and that they are restored exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.errors import UserError
from sean_jax.experiment import Experiment
from sean_jax.run.checkpoints import Checkpoints, abstract_state, read_state
from sean_jax.run.directory import create
from sean_jax.run.plan import plan
from sean_jax.run.trained import open_network

SCORES = {3: 20.0, 6: 50.0, 9: 50.0, 12: 40.0}  # by step; two steps share the best score


def state(step: int) -> dict:
    return {"step": jnp.int32(step), "x": jnp.full((3, 2), step + 0.1, jnp.float32)}


def steps(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize(("keep_best", "kept"), [(False, [12, 14, 15, 16]), (True, [9, 12, 14, 15, 16])])
def test_latest_last_evaluated_and_best_checkpoints_are_kept(tmp_path, keep_best, kept):
    """Checkpoints are saved more often than evaluated; ties go to the later one; a restart changes nothing."""
    for first, last in ((1, 7), (8, 16)):
        with Checkpoints(tmp_path, keep_best=keep_best) as checkpoints:
            for step in range(first, last + 1):
                checkpoints.save(step, state(step), {"a": 1}, SCORES.get(step))
    assert steps(tmp_path) == kept
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest_step == 16
        if keep_best:
            assert checkpoints.best_step == 9


def test_restored_state_is_bitwise_equal(tmp_path):
    values = jnp.array([0.1, -0.0, jnp.nan, jnp.inf, 1e-42], jnp.float32)
    saved = {"x": values, "n": jnp.int32(7)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, saved, {})
        checkpoints.wait()
        restored = checkpoints.restore(5, jax.eval_shape(lambda: saved))
    for name, value in saved.items():
        assert np.asarray(restored[name]).tobytes() == np.asarray(value).tobytes()


def test_save_copies_the_state_before_it_returns(tmp_path):
    """The next step donates the state, so Orbax must write a copy."""
    donate = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        current = state(1)
        checkpoints.save(1, current, {})
        for _ in range(3):
            current = donate(current)
        checkpoints.wait()
        restored = checkpoints.restore(1, jax.eval_shape(lambda: state(1)))
    np.testing.assert_array_equal(restored["x"], state(1)["x"])


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), {})
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest_step == 1
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 1
        checkpoints.save(2, state(2), {})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest_step == 2
        np.testing.assert_array_equal(checkpoints.restore(2, jax.eval_shape(lambda: state(2)))["x"], state(2)["x"])


def test_disk_errors_are_reported_in_one_line(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:

        def fail(*_, **__):
            raise ValueError("tensorstore: write failed\nwith a long story")

        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(UserError, match=r"cannot write a checkpoint to .*write failed; the last complete") as error:
            checkpoints.save(1, state(1), {})
        assert "long story" not in str(error.value)


@pytest.fixture
def run(tmp_path) -> Experiment:
    flags = {"preset": "quick", "width_multiplier": 1 / 64, "fc_channels": 64, "data_dir": str(tmp_path)}
    return plan(flags).experiment


@pytest.mark.parametrize(("selection", "counts"), [("last", 6), ("oracle", 4)])
def test_read_network_uses_the_selected_checkpoint(tmp_path, run, selection, counts):
    run = run._replace(config=dataclasses.replace(run.config, selection=selection))
    create(tmp_path / "run", run, {})
    method = run.method()
    # Zeros suffice, so nothing needs to be initialised and compiled.
    initial = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_state(method))
    with Checkpoints(tmp_path / "run", keep_best=selection == "oracle") as checkpoints:
        for step in range(1, 7):
            teacher = jax.tree.map(lambda x, step=step: jnp.full_like(x, step), initial.params["teacher"])
            current = initial.replace(step=jnp.int32(step), params=initial.params | {"teacher": teacher})
            checkpoints.save(step, current, {}, {2: 10.0, 4: 30.0, 6: 20.0}.get(step))
    teacher = open_network(str(tmp_path / "run"))
    assert (teacher.name, teacher.step) == ("teacher", counts)
    assert all((np.asarray(x) == counts).all() for x in jax.tree.leaves(teacher.params))
    student = open_network(str(tmp_path / "run"), network="student").params
    assert jax.tree.structure(student) == jax.tree.structure(initial.params["student"])
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(student))
    with pytest.raises(UserError, match="--network=ema is not one of this run's networks; expected one of teacher"):
        open_network(str(tmp_path / "run"), network="ema")
    assert int(read_state(tmp_path / "run").step) == 6


def test_opening_a_network_reads_only_its_arrays(tmp_path, run, monkeypatch):
    """The other network and the optimiser's moments, three quarters of the state, are not read."""
    create(tmp_path / "run", run, {})
    initial = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_state(run.method()))
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, initial, {})
    restored = []
    restore = Checkpoints._restore
    monkeypatch.setattr(Checkpoints, "_restore", lambda *args: restored.append(restore(*args)) or restored[-1])
    params = open_network(str(tmp_path / "run")).params
    (found,) = restored
    assert sum(x.size for x in jax.tree.leaves(found)) == sum(x.size for x in jax.tree.leaves(params))


def test_a_missing_checkpoint_is_reported(tmp_path, run):
    create(tmp_path / "run", run, {})
    for _ in range(2):
        with pytest.raises(UserError, match="no complete checkpoint yet"):
            read_state(tmp_path / "run")
        (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(13, "Permission denied"), "ask its owner for the right to read it"),
        (ValueError("Error opening file: Permission denied [os_error_code='13']"), "ask its owner for the right"),
        (ValueError("zarr: Too many open files [os_error_code='24']"), "allow more open files (ulimit -n)"),
        (OSError(116, "Stale file handle"), "check the disk or the network"),
    ],
)
def test_a_checkpoint_that_may_be_sound_is_not_called_damaged(tmp_path, error, advice):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError) as raised,
        checkpoints._read_errors("checkpoint 4"),
    ):
        raise error
    assert f"it may be sound: {advice}" in str(raised.value)
    assert "delete" not in str(raised.value)
    assert "move" not in str(raised.value)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_want_of_memory_is_no_error_of_a_checkpoint(tmp_path, error):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(type(error)), checkpoints._read_errors("checkpoint 4"):
        raise error


def test_devices_that_jax_cannot_use_are_no_error_of_a_checkpoint(tmp_path, monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(RuntimeError, match="Unable to initialize backend"):
        Checkpoints(tmp_path)
