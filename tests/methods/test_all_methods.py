"""Tests of every method: several devices, divided batches, one compilation, no hidden copies, resumption to the bit."""

import contextlib

import builders
import jax
import numpy as np
import pytest
import steps

from sean_jax.methods import METHODS
from sean_jax.run.checkpoints import Checkpoints, abstract_state
from sean_jax.settings import kind, names
from sean_jax.training.parallel import pmap_step, replicate

# The tests of a method share compiled programs.
for_each_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in METHODS]
)


SETTINGS = {  # replaces defaults that would make a test trivial or slow
    "sean": {"attention_threshold": 0.5},
    "sac": {"views": 2},
    "cycada": {"accuracy_threshold": 0.0},
    # Whole images: on squares of 24 pixels, some gradients are so small that Adam makes whole steps of their rounding.
    "fcns_in_the_wild": {
        "crop_size": 32,
        "discriminator_channels": 16,
        "discriminator_learning_rate_factor": 1.0,
    },
    "cca": {
        "crop_size": 32,
        "discriminator_channels": 16,
        "discriminator_learning_rate_factor": 0.1,
        "class_discriminator_learning_rate_factor": 0.01,
        "class_alignment_start": 0.0,
    },
}


def _method(name: str, **settings):
    return builders.method(
        name, **{"learning_rate": 1e-3, "random_flip": True, "crop_size": 24} | SETTINGS.get(name, {}) | settings
    )


def _batch(name: str):
    return steps.batch(name, examples=8)


@for_each_method
def test_a_step_is_equal_on_one_device_and_on_four_that_divide_their_share(name):
    """The step draws noise and mirroring itself, so an example must get the same random numbers on any device.

    Four devices have two examples each, which they process in turn, unless the method refuses that.
    """
    parts = 2 if METHODS[name].ACCUMULATES else 1
    method, divided = _method(name), _method(name, accumulate_steps=parts)
    (one, metrics_one), (four, metrics_four) = (
        steps.run(method, _batch(name)),
        steps.run(divided, _batch(name), devices=4),
    )
    for metric, value in metrics_one.items():
        np.testing.assert_allclose(metrics_four[metric], value, rtol=1e-5)
        assert np.isfinite(value)
    assert steps.relative(four.params, one.params) < 1e-5


@for_each_method
def test_the_step_compiles_once_and_makes_no_hidden_copies(name):
    """If the state had another layout at the first step than later, the second step would compile again.

    The transfer guard forbids implicit transfers between host and device.
    """
    method, devices = _method(name), steps.DEVICES[:1]
    step = pmap_step(method, devices)
    state, rng = replicate((steps.init(method), jax.random.key(3)), devices)
    compiled = []
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            before = jax.tree.leaves(state)
            with _compilations() as durations:
                state, _ = step(state, _batch(name), rng)
            compiled.append(len(durations))
            assert all(x.is_deleted() for x in before)  # donated: one state in memory, not two
    assert compiled[1:] == [0, 0]
    other = pmap_step(_method(name, learning_rate=2e-3, weight_decay=1e-3, steps=77), devices)
    with _compilations() as durations:
        other(state, _batch(name), rng)
    assert not durations  # because numbers in the settings are arguments of the compiled step


@for_each_method
def test_a_run_that_was_killed_resumes_with_the_same_bits(name, tmp_path):
    """A state that was written to disk after one step and read back takes the same two steps."""
    method, devices = _method(name), steps.DEVICES[:1]
    step, checkpoints = pmap_step(method, devices), Checkpoints(tmp_path, keep_best=False)

    def advance(state, first: int, last: int):
        state, rng = replicate((state, jax.random.key(3)), devices)
        for number in range(first, last):
            raw = {key: np.roll(x, number, 0) for key, x in _batch(name).items()}
            state, _ = step(state, raw, rng)
            if number == 0:
                checkpoints.save(1, state, {}, None)
                checkpoints.wait()
        return state

    whole = advance(steps.init(method), 0, 3)
    resumed = advance(checkpoints.restore(1, abstract_state(method)), 1, 3)
    checkpoints.close()
    assert steps.same_bits(resumed, whole)
    assert not steps.same_bits(resumed.params, steps.init(method).params)


@contextlib.contextmanager
def _compilations():
    durations: list[float] = []

    def note(event: str, duration: float, **_) -> None:
        if "backend_compile" in event:
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield durations
    jax.monitoring.unregister_event_duration_listener(note)


@for_each_method
def test_metrics_include_learning_rate_and_gradient_norm(name):
    method, batch = _method(name, weight_decay=0.0), _batch(name)
    _, metrics = steps.run(method, batch)
    assert {"train/loss", "train/learning_rate", "train/gradient_norm"} <= metrics.keys()
    np.testing.assert_allclose(metrics["train/learning_rate"], 1e-3, rtol=1e-6)
    assert metrics["train/gradient_norm"] > 0


@for_each_method
def test_evaluated_networks_are_complete_parts_of_the_parameters(name):
    method = _method(name)
    state = abstract_state(method)
    leaves = {id(x) for x in jax.tree.leaves(state.params)}
    for params in method.evaluated(state).values():
        assert all(id(x) in leaves for x in jax.tree.leaves(params))
        assert jax.tree.structure(params) == jax.tree.structure(method.network.abstract_params())


def test_shared_setting_names_have_one_type_and_help_text():
    """Settings with the same name in several methods have the same type and help text, so they can share a flag."""
    seen: dict[str, tuple] = {}
    for method in METHODS.values():
        for name in names(method.Settings):
            meaning = (kind(method.Settings, name), method.Settings.__dataclass_fields__[name].metadata["help"])
            assert seen.setdefault(name, meaning) == meaning, name
