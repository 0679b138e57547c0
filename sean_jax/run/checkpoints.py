"""Orbax checkpoints: the whole state of a run and its configuration, written while training goes on."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from sean_jax.errors import UserError
from sean_jax.methods import make_method
from sean_jax.run import directory as rundir

KEEP = 3  # the last few
SCORE = "mean_iou"  # the metric an evaluated checkpoint is saved with: the teacher's, in percent


class KeepEvaluated:
    """Keeps the checkpoint that was evaluated last and, for oracle selection, the best one."""

    def __init__(self, keep_best: bool):
        self._keep_best = keep_best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        scores = {i: info.metrics[SCORE] for i, info in enumerate(checkpoints) if info.metrics}
        kept = {max(scores)} if scores else set()
        if self._keep_best and scores:
            kept.add(max(scores, key=lambda i: (scores[i], i)))  # of equal ones the later, as Orbax's best_step
        return [i in kept for i in range(len(checkpoints))]


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, workdir: pathlib.Path, *, keep_best: bool = False, read_only: bool = False):
        self._directory = workdir / "checkpoints"
        policies = [checkpoint_managers.preservation_policy.LatestN(KEEP), KeepEvaluated(keep_best)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: metrics[SCORE],
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        if not read_only:
            self._directory.mkdir(exist_ok=True)  # not left to Orbax: here a full disk is an OSError
        with self._read_errors("a checkpoint"):
            self._manager = ocp.CheckpointManager(self._directory.absolute(), options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step whose evaluated teacher scored best; None if none was evaluated."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, config: dict[str, Any], score: float | None = None) -> None:
        """Starts writing ``state``; returns when it is copied, so that the step may donate it.

        Raises:
          UserError: this or the previous checkpoint cannot be written.
        """
        if jax.process_count() > 1:  # every host holds a copy; Orbax wants to know that they are one array
            mesh = jax.sharding.Mesh(jax.devices(), "devices")
            state = multihost_utils.host_local_array_to_global_array(state, mesh, jax.sharding.PartitionSpec())
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config))
        metrics = None if score is None else {SCORE: score}
        self._guarded(lambda: self._manager.save(step, args=items, metrics=metrics, force=True))

    def restore(self, step: int, like: Any) -> Any:
        """The state at ``step`` on a device of this host; ``like`` has its structure, shapes and types.

        Raises:
          UserError: the checkpoint is damaged.
        """
        mesh = jax.sharding.Mesh(jax.devices(), "devices")
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        with self._read_errors(f"checkpoint {step}"):
            state = self._manager.restore(step, args=items)["state"]
        return jax.tree.map(lambda x: x.addressable_data(0), state)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UserError: it could not be written.
        """
        self._guarded(self._manager.wait_until_finished)

    def close(self) -> None:
        """As :meth:`wait`, and the last thing to be called."""
        self._guarded(self._manager.close)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # What is on its way out says more than a second complaint about the same disk.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()

    def _guarded(self, write: Any) -> None:
        try:
            write()
        except Exception as error:  # tensorstore reports disks through exceptions of many types
            raise UserError(
                f"cannot write a checkpoint to {self._directory}: {_reason(error)}; the last whole checkpoint is kept: "
                "free space there and run the same command again"
            ) from error

    @contextlib.contextmanager
    def _read_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax and tensorstore raise here is about files that they wrote
            raise UserError(
                f"{what} in {self._directory} cannot be read ({_reason(error)}); "
                "delete the damaged one, and the same command resumes from the one before"
            ) from error


def _reason(error: Exception) -> str:
    """What the operating system said, where tensorstore quotes it; else the exception's first line, shortened."""
    if quoted := re.search(r"([^:\n]+) \[os_error_code", str(error)):
        return quoted[1].strip()
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def read_state(workdir: str | os.PathLike[str], *, best: bool = False) -> Any:
    """The whole state of a run at its last checkpoint, or at the one whose teacher scored best.

    Raises:
      UserError: no run, or no whole checkpoint yet.
    """
    run = rundir.load(workdir)
    network = run.network()
    if (pathlib.Path(workdir) / "checkpoints").is_dir():
        with Checkpoints(pathlib.Path(workdir), read_only=True) as checkpoints:
            step = (checkpoints.best_step if best else None) or checkpoints.latest_step
            if step is not None:
                like = abstract_state(make_method(run.config, network), network)
                return checkpoints.restore(step, like)
    raise UserError(f"--workdir={workdir} holds no whole checkpoint yet; let the training run longer")


def read_weights(workdir: str | os.PathLike[str], network: str) -> tuple[Any, dict[str, Any]]:
    """The parameters of a run's ``teacher`` or ``student`` at the checkpoint that counts, and their metadata.

    That is the last one, or under oracle selection the one whose teacher scored best. The metadata are those of
    :meth:`sean_jax.run.directory.Run.weights_metadata`, ``network`` and ``step``.
    """
    run = rundir.load(workdir)
    state = read_state(workdir, best=run.config.selection == "oracle")
    networks = make_method(run.config, run.network()).networks(state)
    return networks[network], run.weights_metadata() | {"network": network, "step": int(state.step)}


def abstract_state(method: Any, segmenter: Any) -> Any:
    """Structure, shapes and types of the method's state, without computing anything."""
    return jax.eval_shape(method.init, segmenter.abstract_params())
