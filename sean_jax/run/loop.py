"""The training loop: restore → step → log → evaluate → save."""

import contextlib
import pathlib
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sean_jax import weights
from sean_jax.data.catalogue import label_map
from sean_jax.data.pipeline import check_loader, training_batches
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.methods import Method, make_method
from sean_jax.run import directory as rundir
from sean_jax.run.checkpoints import Checkpoints, abstract_state
from sean_jax.run.monitor import Monitor, final_report
from sean_jax.run.plan import Plan, check_folders, differing_uses, fingerprint, prepare_scoring, prepare_training
from sean_jax.scoring.scorer import Evaluation, Scorer
from sean_jax.training.parallel import Devices, devices_for, pmap_step, replicate
from sean_jax.training.randomness import Purpose


def train(plan: Plan, workdir: pathlib.Path) -> bool:
    """Runs ``plan`` in ``workdir``, from the last checkpoint there to the plan's last step.

    Returns:
      Whether it got there; False if SIGTERM ended it before.

    Raises:
      UserError: bad input, a run of another configuration in ``workdir``, a full disk, a loss that is not finite.
    """
    config, network = plan.run.config, plan.run.network()
    method = make_method(config, network)
    devices = devices_for(config.batch_size, config.accumulate_steps)
    leader = jax.process_index() == 0
    say = print if leader else lambda _: None
    if leader:
        rundir.check(workdir, plan.run)  # what is refused is refused before anything is prepared
        check_folders(plan, reads_target=method.reads_target)
    check_loader(config.loader)
    say(_headline(plan, devices))

    # Data first, so that bad input leaves no run directory: the source with labels, the target without. The largest
    # set comes last, so that what is wrong with the others is said early.
    scored = prepare_scoring(config, plan.target, progress=leader)
    source, target = prepare_training(plan, reads_target=method.reads_target, progress=leader)
    scorer = None
    if scored is not None and config.eval_split is not None:
        # Scoring uses all devices, even where the training batch is too small for them.
        scorer = Scorer(plan.run, plan.target, config.eval_split, scored, jax.local_devices())
    else:
        say(f"{plan.target.name} has no labelled split: nothing will be scored")

    sets = {"source": (plan.source, source), "target": (plan.target, target), "scored": (plan.target, scored)}
    data = {name: fingerprint(dataset, found) for name, (dataset, found) in sets.items() if found is not None}
    if leader:
        rundir.check_data(workdir, data)
    initial = None if rundir.exists(workdir) else method.init(_initial_params(plan, say))
    if leader:
        rundir.create(workdir, plan.run, data)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the run directory is there")
    with rundir.claimed(workdir) if leader else contextlib.nullcontext():
        return _fit(plan, workdir, method, initial, devices, Inputs(source, target, scorer), say)


class Inputs(NamedTuple):
    """What a run reads."""

    source: PreparedSet
    target: PreparedSet | None  # None for methods that do not read it
    scorer: Scorer | None  # None where the target has no labelled split


def _fit(
    plan: Plan, workdir: pathlib.Path, method: Method, initial: Any, devices: Devices, inputs: Inputs, say: Any
) -> bool:
    """Restores the last checkpoint, or begins from ``initial``, and takes the steps left; see :func:`train`."""
    config, network, scorer = plan.run.config, plan.run.network(), inputs.scorer
    leader = jax.process_index() == 0
    checkpoints = Checkpoints(workdir, keep_best=config.selection == "oracle")
    restored_step = checkpoints.latest_step or 0
    if restored_step:
        state = checkpoints.restore(restored_step, abstract_state(method, network))
        say(f"resuming from step {restored_step} of {config.steps}")
    else:
        state = initial if initial is not None else method.init(_initial_params(plan, say))

    assert config.steps is not None
    if restored_step == config.steps:
        say("this run is finished")
        checkpoints.close()
        _report(workdir, leader)
        return True
    batches = training_batches(
        inputs.source,
        label_map(plan.source, plan.run.label_space),
        inputs.target,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=restored_step,
        stop_step=config.steps,
        loader=config.loader,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
    )
    step_fn = pmap_step(method.step, devices)
    state, rng = replicate((state, jax.random.key(config.seed)), devices)
    images_per_step = config.batch_size * (2 if method.reads_target else 1)
    monitor = Monitor(workdir, plan.run, restored_step, images_per_step, leader)
    settings = rundir.to_json(plan.run)

    with monitor, checkpoints, _stop_signals() as received:
        for step, batch in enumerate(batches, restored_step + 1):
            state, metrics = step_fn(state, batch, rng)
            monitor.step()

            last, stopping = step == config.steps, _agreed(received, step % config.log_every == 0)
            logging = step % config.log_every == 0 or last
            evaluating = scorer is not None and (step % config.eval_every == 0 or last)
            saving = evaluating or step % config.save_every == 0 or last or stopping
            if logging or saving:
                losses = _finite(metrics, step, checkpoints, state if saving else None)
                if logging:
                    monitor.losses(step, losses)

            score = None
            if scorer is not None and evaluating:
                networks = method.networks(state)
                evaluation = Evaluation(scorer.evaluate(networks, step), scorer.panel(networks["teacher"]))
                monitor.evaluation(step, evaluation)
                score = evaluation.mean_iou
            monitor.end_step(step)

            # What was evaluated is saved with its score; the file is written while the next steps run.
            if saving:
                checkpoints.save(step, state, settings, score)
            if stopping:
                break
        checkpoints.wait()

    if (checkpoints.latest_step or 0) == config.steps:
        _report(workdir, leader)
        return True
    name = signal.Signals(received[0]).name
    say(f"stopped by {name} after step {checkpoints.latest_step}, which is saved; the same command resumes there")
    if name == "SIGINT":
        raise KeyboardInterrupt
    return False


def _report(workdir: pathlib.Path, leader: bool) -> None:
    if leader:
        print(final_report(workdir))
        print(f"run directory: {workdir}; pictures: {workdir / 'pictures'}")


def _headline(plan: Plan, devices: Devices) -> str:
    config = plan.run.config
    batch = f"batch {config.batch_size} on {len(devices)} of {jax.device_count()} {devices[0].platform} device(s)"
    return (
        f"{config.method} ({config.preset} preset): {config.source} → {config.target}, "
        f"{len(plan.run.label_space.classes)} classes, {config.width}x{config.height} pixels, {batch}"
    )


def _initial_params(plan: Plan, say: Any) -> Any:
    config = plan.run.config
    params = plan.run.network().init_params(jax.random.fold_in(jax.random.key(config.seed), Purpose.INIT))
    if plan.initial_weights is None:
        if config.preset != "quick":
            say("no --init_weights: training from scratch; the paper starts from a VGG-16 trained on ImageNet")
        return params
    params, report = weights.into_params(plan.initial_weights, params)
    say(f"{config.init_weights}: {report}")
    for difference in differing_uses(plan.initial_weights, plan.run):
        say(f"attention: these weights were made for another network: {difference}")
    return params


def _finite(metrics: Any, step: int, checkpoints: Checkpoints, state: Any = None) -> dict[str, float]:
    """The metrics as numbers.

    Raises:
      UserError: one of them, or a parameter in ``state``, is not finite.
    """
    values = {name: float(value) for name, value in metrics.items()}
    faulty = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
    if not faulty and state is not None and not bool(_all_finite(state)):
        faulty = ["a parameter is not finite"]
    if faulty:
        checkpoints.wait()
        good = checkpoints.latest_step
        kept = f"the last good checkpoint is step {good}" if good else "no checkpoint was written yet"
        raise UserError(
            f"training stopped at step {step}: {', '.join(faulty)}; {kept}. "
            "Try a lower --learning_rate, --precision=float32, or look at the labels"
        )
    return values


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves]))


def _agreed(received: list[int], may_ask: bool) -> bool:
    """Whether to stop after this step. Several hosts must stop together: they ask each other where they ``may_ask``."""
    if jax.process_count() == 1:
        return bool(received)
    if not may_ask:
        return False
    signals = multihost_utils.process_allgather(np.int32(max(received, default=0)))
    received[:] = [int(signals.max())] if signals.any() else []
    return bool(received)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The signals that came, SIGTERM or SIGINT (Ctrl-C): the loop finishes its step, saves and ends.

    A second Ctrl-C ends at once. The first must not: raised wherever it falls, KeyboardInterrupt is lost in a callback
    of JAX's from time to time.
    """
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
