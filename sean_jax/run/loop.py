"""The training loop: restore, step, log, evaluate, save."""

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax import weights
from sean_jax.data.dataset import label_map
from sean_jax.data.pipeline import check_loader, training_batches
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.methods import METHODS, Method, TrainState
from sean_jax.run import directory, hosts, sampling, start
from sean_jax.run.checkpoints import Checkpoints, abstract_state, is_finished, latest_step
from sean_jax.run.checksums import set_aside_damaged
from sean_jax.run.determinism import request_deterministic_kernels
from sean_jax.run.monitor import Monitor, final_report
from sean_jax.run.plan import Plan, check_folders, fingerprint, prepare_scoring, prepare_training, weights_differences
from sean_jax.run.profile import Profile
from sean_jax.run.signals import should_stop, stop_signals
from sean_jax.scoring.scorer import Evaluation, Scorer
from sean_jax.scoring.translation import Translator
from sean_jax.training.parallel import Devices, devices_for, initial_state, pmap_step, replicate
from sean_jax.training.randomness import purpose_key

Say = Callable[[str], None]


class Inputs(NamedTuple):
    """The prepared data sets of a run."""

    source: PreparedSet
    target: PreparedSet | None  # None if the method does not read it
    scorer: Scorer | None  # None if the target has no labelled split, or the method no network to score


def train(plan: Plan, workdir: pathlib.Path, *, profile_steps: tuple[int, int] | None = None) -> bool:
    """Trains from the last checkpoint in ``workdir``, if there is one, to the plan's last step.

    Args:
      plan: the resolved run.
      workdir: the run directory.
      profile_steps: first and last step of a profiler trace, written to ``workdir/profile``.

    Returns:
      Whether the run is finished; False if SIGTERM stopped it.

    Raises:
      UserError: the input is bad, ``workdir`` contains a run with a different configuration, the disk is full, or a
        loss is not finite.
    """
    config, method = plan.experiment.config, plan.experiment.method()
    if config.deterministic:
        request_deterministic_kernels()
    devices = devices_for(config.batch_size, config.accumulate_steps)
    leader = jax.process_index() == 0
    say: Say = print if leader else lambda _: None
    if leader:
        directory.check(workdir, plan.experiment)  # report errors before preparing data
    check_loader(config.loader)
    known = directory.known_data(workdir)
    try:
        if leader:
            check_folders(plan, reads_target=method.READS.target, known=known)
        say(_headline(plan, devices))
        with hosts.leader_first("data are prepared"):
            inputs = _prepare(plan, method, leader, known)
    except UserError:
        folders = [folder for folder in (config.source_dir, config.target_dir) if folder]
        if all(map(os.path.isdir, folders)) or not is_finished(workdir, config.steps):
            raise
        say("this run is already finished; its data are no longer there")
        _report(plan, workdir, leader)
        return True
    if inputs.scorer is None:
        say(_why_no_scores(plan))
    data = _fingerprints(plan, inputs)
    if leader:
        directory.check_data(workdir, data)
    initial = None if directory.exists(workdir) else _initial_state(plan, method, inputs, say)
    if leader:
        directory.create(workdir, plan.experiment, data)
    hosts.wait_for_all("the run directory exists")
    with directory.locked(workdir) if leader else contextlib.nullcontext():
        if leader:
            for line in set_aside_damaged(workdir / "checkpoints"):
                say(line)
            directory.resume(workdir, plan.experiment, latest_step(workdir))
        hosts.wait_for_all("damaged checkpoints are set aside")
        return _fit(plan, workdir, method, initial, devices, inputs, say, Profile(workdir, profile_steps))


def _prepare(plan: Plan, method: Method, leader: bool, known: dict[str, str]) -> Inputs:
    """Prepares the data; ``known`` are those of a run that is resumed.

    It precedes the run directory, so that bad input leaves no directory behind. The largest data set comes last, so
    that errors in the others are reported early.
    """
    config = plan.experiment.config
    scored = prepare_scoring(config, plan.target, progress=leader, known=known)
    source, target = prepare_training(plan, reads_target=method.READS.target, progress=leader, known=known)
    scorer = None
    if scored is not None and config.eval_split is not None:
        scorer = Scorer(plan.experiment, plan.target, config.eval_split, scored, jax.local_devices())
    return Inputs(source, target, scorer)


def _fingerprints(plan: Plan, inputs: Inputs) -> dict[str, str]:
    sets = {"source": (plan.source, inputs.source), "target": (plan.target, inputs.target)}
    if inputs.scorer is not None:
        sets["scored"] = (plan.target, inputs.scorer.prepared)
    return {name: fingerprint(dataset, found) for name, (dataset, found) in sets.items() if found is not None}


def _fit(
    plan: Plan,
    workdir: pathlib.Path,
    method: Method,
    initial: TrainState | None,
    devices: Devices,
    inputs: Inputs,
    say: Say,
    profile: Profile,
) -> bool:
    """Restores the last checkpoint, or starts from ``initial``, and trains the remaining steps; see :func:`train`."""
    config, scorer = plan.experiment.config, inputs.scorer
    leader = jax.process_index() == 0
    checkpoints = Checkpoints(workdir, keep_best=config.selection == "oracle")
    restored_step = checkpoints.latest_step or 0
    if restored_step:
        state = checkpoints.restore(restored_step, abstract_state(method))
        say(f"resuming from step {restored_step} of {config.steps}")
    else:
        state = initial if initial is not None else _initial_state(plan, method, inputs, say)
        if leader:
            directory.write_parameters(workdir, state.params)

    assert config.steps is not None
    if restored_step >= config.steps:
        say("this run is already finished")
        checkpoints.close()
        _report(plan, workdir, leader)
        return True
    target_probabilities = None
    if inputs.target is not None:
        first = None if restored_step else next(iter(method.evaluated(state).values()), None)
        target_probabilities = sampling.target_probabilities(plan, inputs.target, workdir, first)
    batches = training_batches(
        inputs.source,
        label_map(plan.source, plan.experiment.label_space),
        inputs.target,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=restored_step,
        stop_step=config.steps,
        source_probabilities=sampling.source_probabilities(plan, inputs.source),
        target_probabilities=target_probabilities,
        target_extras={name: method.stored_extra(name) for name in method.READS.target_extras},
        loader=config.loader,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
    )
    step_fn = pmap_step(method, devices)
    state, rng = replicate((state, jax.random.key(config.seed)), devices)
    images_per_step = config.batch_size * (2 if method.READS.target else 1)
    monitor = Monitor(workdir, plan.experiment, restored_step, images_per_step, leader)
    settings = plan.experiment.to_json()
    translates = method.translators(state) is not None
    translator = Translator(method)

    before = start.read(workdir)

    def evaluate(scorer: Scorer, step: int) -> float:
        networks = method.evaluated(state)
        first = next(iter(networks.values()))
        evaluation = Evaluation(scorer.evaluate(networks, step), scorer.panel(first, before))
        monitor.evaluation(step, evaluation)
        return evaluation.mean_iou

    with monitor, checkpoints, profile, stop_signals() as received:
        if scorer is not None and start.segments(plan):
            before = scorer.predictions(next(iter(method.evaluated(state).values())))
            if leader:
                start.write(workdir, before)
            evaluate(scorer, 0)
            monitor.end_step(0)
        for step, batch in enumerate(batches, restored_step + 1):
            profile.before(step)
            state, metrics = step_fn(state, batch, rng)
            profile.after(step, metrics)
            monitor.step()

            last, stopping = step == config.steps, should_stop(received, step)
            logging = step % config.log_every == 0 or last
            evaluating = (scorer is not None or translates) and (step % config.eval_every == 0 or last)
            saving = evaluating or step % config.save_every == 0 or last or stopping
            if logging or saving:
                values = _finite(metrics, step, checkpoints, state if saving else None)
                if logging:
                    monitor.metrics(step, values)

            score = evaluate(scorer, step) if scorer is not None and evaluating else None
            translators = method.translators(state) if evaluating else None
            if translators is not None and inputs.target is not None:
                monitor.picture(step, translator.panel(translators, inputs.source, inputs.target))
            monitor.end_step(step)

            # Orbax writes the checkpoint while the next steps run.
            if saving:
                checkpoints.save(step, state, settings, score)
            if stopping:
                break
        checkpoints.wait()

    if (checkpoints.latest_step or 0) == config.steps:
        _report(plan, workdir, leader)
        return True
    name = signal.Signals(received[0]).name
    say(f"stopped by {name}; saved step {checkpoints.latest_step}. Run the same command again to resume")
    if name == "SIGINT":
        raise KeyboardInterrupt
    return False


def _why_no_scores(plan: Plan) -> str:
    method = plan.experiment.config.method
    if not METHODS[method].SEGMENTS:
        return f"{method} trains no segmentation network: the run computes no scores"
    if plan.target.evaluation_split is not None:
        return "--eval_split=none: the run computes no scores"
    return f"{plan.target.name} has no labelled split: the run computes no scores"


def _report(plan: Plan, workdir: pathlib.Path, leader: bool) -> None:
    if leader:
        print(final_report(workdir) or _why_no_scores(plan))
        print(f"run directory: {workdir}; pictures: {workdir / 'pictures'}")


def _headline(plan: Plan, devices: Devices) -> str:
    config = plan.experiment.config
    batch = f"batch {config.batch_size} on {len(devices)} of {jax.device_count()} {devices[0].platform} device(s)"
    return (
        f"{config.method} ({config.preset} preset): {config.source} → {config.target}, "
        f"{plan.experiment.label_space.num_classes} classes, {config.width}x{config.height} pixels, {batch}"
    )


def _initial_state(plan: Plan, method: Method, inputs: Inputs, say: Say) -> TrainState:
    config, rng = plan.experiment.config, jax.random.key(plan.experiment.config.seed)
    params = method.network.init_params(purpose_key(rng, "init"))
    if plan.initial_weights is None:
        if config.preset != "quick":
            say("training from scratch (no --init_weights); the paper starts from a VGG-16 pretrained on ImageNet")
    else:
        params, report = weights.into_params(plan.initial_weights, params, method.network.TORCH_MODULES)
        say(f"{config.init_weights}: {report}")
        for difference in weights_differences(plan.initial_weights, plan.experiment):
            say(f"warning: these weights come from a different network: {difference}")
    state = initial_state(method, purpose_key(rng, "method_init"), params)
    if not method.READS.source_statistics:
        return state
    return method.with_source_shares(state, jnp.asarray(sampling.source_shares(plan, inputs.source), jnp.float32))


def _finite(metrics: Any, step: int, checkpoints: Checkpoints, state: Any = None) -> dict[str, float]:
    """Returns the metrics as numbers.

    Raises:
      UserError: a metric or a value in ``state`` is not finite.
    """
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    problems = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
    if not problems and state is not None and not bool(_all_finite(state)):
        problems = ["a parameter is not finite"]
    if problems:
        checkpoints.wait()
        good = checkpoints.latest_step
        kept = f"the last good checkpoint is step {good}" if good else "no checkpoint was written yet"
        raise UserError(
            f"training stopped at step {step}: {', '.join(problems)}; {kept}. "
            "Try a lower --learning_rate or --precision=float32, or check the labels"
        )
    return values


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves]))
