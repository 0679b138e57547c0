"""Orbax checkpoints: the complete state of a run and its configuration, written in the background."""

import contextlib
import errno
import functools
import operator
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
from sean_jax.methods import Method, Translators
from sean_jax.run import checksums, directory

KEEP = 3  # number of latest checkpoints that are kept
_NO_TIMEOUT = 100 * 365 * 86400  # seconds; Orbax follows the wall clock, which may jump
SCORE = "mean_iou"  # the metric saved with an evaluated checkpoint: mean IoU of the main network, in percent


class KeepEvaluated:
    """An Orbax policy that keeps the last evaluated checkpoint and, for oracle selection, the best one."""

    def __init__(self, keep_best: bool):
        self._keep_best = keep_best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        scores = {i: info.metrics[SCORE] for i, info in enumerate(checkpoints) if info.metrics}
        kept = {max(scores)} if scores else set()
        if self._keep_best and scores:
            kept.add(max(scores, key=lambda i: (scores[i], i)))  # ties go to the later one, as in Orbax's best_step
        return [i in kept for i in range(len(checkpoints))]


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, workdir: pathlib.Path, *, keep_best: bool = False, read_only: bool = False):
        self._directory = workdir / "checkpoints"
        policies = [checkpoint_managers.preservation_policy.LatestN(KEEP), KeepEvaluated(keep_best)]
        in_background = ocp.AsyncOptions(_NO_TIMEOUT, create_directories_asynchronously=False)  # has a limit of its own
        in_background.post_finalization_callback = self._write_checksums
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: metrics[SCORE],
            cleanup_tmp_directories=not read_only,
            async_options=in_background,
            read_only=read_only,
            create=not read_only,
        )
        jax.devices()  # that JAX cannot use its devices is no error of a checkpoint
        if not read_only:
            self._directory.mkdir(exist_ok=True)  # here a full disk raises an OSError; in Orbax it does not
        with self._read_errors("a checkpoint"):
            self._manager = ocp.CheckpointManager(self._directory.absolute(), options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the best score; None if none was evaluated."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, config: dict[str, Any], score: float | None = None) -> None:
        """Starts writing ``state`` and returns once it is copied, so that the next step may donate it.

        Raises:
          UserError: this or the previous checkpoint cannot be written.
        """
        if jax.process_count() > 1:  # each host holds a copy; Orbax needs them as one global array
            mesh = jax.sharding.Mesh(jax.devices(), "devices")
            state = multihost_utils.host_local_array_to_global_array(state, mesh, jax.sharding.PartitionSpec())
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config))
        metrics = None if score is None else {SCORE: score}
        self.wait()
        self._saving = step
        self._guarded(lambda: self._manager.save(step, args=items, metrics=metrics, force=True))

    def _write_checksums(self) -> None:
        """Orbax calls this when the files are written, before it gives their folder its final name."""
        if jax.process_index() > 0:
            return
        final = self._directory / str(self._saving)
        checksums.write(next(self._directory.glob(f"{final.name}{ocp.utils.TMP_DIR_SUFFIX}*"), final))

    def restore(self, step: int, like: Any) -> Any:
        """Returns the state at ``step`` on a device of this host; ``like`` has its structure, shapes and types.

        Raises:
          UserError: the checkpoint is damaged.
        """
        return self._restore(step, ocp.args.StandardRestore(_on_all_devices(like)))

    def restore_params(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """Returns the part of ``state.params`` at ``step`` that ``like`` describes, without reading the rest."""
        item = _on_all_devices({"params": like})
        args = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), item)
        return self._restore(step, ocp.args.PyTreeRestore(item, args, partial_restore=True))["params"]

    def _restore(self, step: int, args: Any) -> Any:
        with self._read_errors(f"checkpoint {step}"):
            state = self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        return jax.tree.map(lambda x: x.addressable_data(0), state)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          UserError: a checkpoint cannot be written.
        """
        self._guarded(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits as :meth:`wait` does and closes the manager."""
        self._guarded(self._manager.close)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # An error that is already propagating is more useful than a second one about the same disk.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()

    def _guarded(self, write: Any) -> None:
        try:
            write()
        except Exception as error:  # tensorstore reports disk errors through many types of exceptions
            raise UserError(
                f"cannot write a checkpoint to {self._directory}: {_reason(error)}; the last complete checkpoint is "
                "kept: free disk space and run the same command again to resume from it"
            ) from error

    @contextlib.contextmanager
    def _read_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # Orbax and tensorstore raise many types of exceptions for damaged files
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            raise UserError(
                f"{what} in {self._directory} cannot be read ({_reason(error)}); {_way_out(error)}"
            ) from error


def _on_all_devices(tree: Any) -> Any:
    mesh = jax.sharding.Mesh(jax.devices(), "devices")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree)


def _reason(error: Exception) -> str:
    """Returns the operating system's message if tensorstore quotes it, else the exception's first line, shortened."""
    if quoted := re.search(r"([^:\n]+) \[os_error_code", str(error)):
        return quoted[1].strip()
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _way_out(error: Exception) -> str:
    """What helps. A checkpoint that this user or machine cannot read may be sound."""
    text, number = str(error), getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM) or "Permission denied" in text:
        return "it may be sound: ask its owner for the right to read it"
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return "it may be sound: allow more open files (ulimit -n)"
    if isinstance(error, OSError) and number != errno.ENOENT:
        return "it may be sound: check the disk or the network, and run the same command again"
    return (
        "if it is damaged, move it out of that folder, and run the same command again to resume from the previous "
        "checkpoint"
    )


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Returns whether a run has a complete checkpoint, from which it would resume."""
    return latest_step(workdir) is not None


def latest_step(workdir: pathlib.Path) -> int | None:
    """Returns the step of the last complete checkpoint of a run; None if there is none."""
    return max(ocp.utils.checkpoint_steps(workdir / "checkpoints"), default=None)


def is_finished(workdir: pathlib.Path, steps: int | None) -> bool:
    """Returns whether a run of ``steps`` has reached its end, and its last checkpoint is whole."""
    last = latest_step(workdir)
    if steps is None or last is None or last < steps:
        return False
    return checksums.damage(workdir / "checkpoints" / str(last)) is None


def read_state(workdir: str | os.PathLike[str]) -> Any:
    """Returns the complete state of a run at its last checkpoint.

    Raises:
      UserError: there is no complete checkpoint yet, or it is damaged.
    """
    with _opened(workdir) as (checkpoints, step):
        return checkpoints.restore(step, abstract_state(directory.load(workdir).method()))


def read_network(
    workdir: str | os.PathLike[str], method: Method, network: str | None, *, best: bool
) -> tuple[str, Any, int]:
    """Reads one of a run's networks, without the rest of the state; returns its name, parameters and step.

    Args:
      network: a name in :meth:`sean_jax.methods.Method.evaluated`; None for the first one.
      best: whether to read the checkpoint with the best score instead of the last one.

    Raises:
      UserError: the run has no such network or no complete checkpoint yet, or the checkpoint is damaged.
    """
    evaluated = method.evaluated(_paths(method))
    if not evaluated:
        raise UserError(f"--workdir={workdir} contains no segmentation network; its method only translates images")
    name = next(iter(evaluated)) if network is None else network
    if name not in evaluated:
        raise UserError(f"--network={name} is not one of this run's networks; expected one of {', '.join(evaluated)}")
    params, step = _read_selected(workdir, method, evaluated[name], best=best)
    return name, params, step


def read_translators(workdir: str | os.PathLike[str], method: Method) -> tuple[Translators, int]:
    """Reads a run's translators at its last checkpoint, without the rest of the state; returns them and the step.

    Raises:
      UserError: the run has none or no complete checkpoint yet, or the checkpoint is damaged.
    """
    chosen = method.translators(_paths(method))
    if chosen is None:
        raise UserError(
            f"--workdir={workdir} contains no network that translates images; expected a run of --method=cyclegan"
        )
    return _read_selected(workdir, method, chosen, best=False)


def _paths(method: Method) -> Any:
    """The method's state with the paths of the parameters in their place: a selection tells which arrays to read."""
    state = abstract_state(method)
    paths = jax.tree_util.tree_map_with_path(lambda path, _: tuple(key.key for key in path), state.params)
    return state.replace(params=paths)


def _read_selected(workdir: str | os.PathLike[str], method: Method, chosen: Any, *, best: bool) -> tuple[Any, int]:
    """Reads the parameters whose paths ``chosen`` holds; returns a tree of the same structure, and the step."""

    def is_path(x: Any) -> bool:
        return type(x) is tuple

    like: dict[str, Any] = {}
    params = abstract_state(method).params
    for path in jax.tree.leaves(chosen, is_leaf=is_path):
        _set(like, path, _get(params, path))
    with _opened(workdir, best=best) as (checkpoints, step):
        found = checkpoints.restore_params(step, like)
    return jax.tree.map(lambda path: _get(found, path), chosen, is_leaf=is_path), step


@contextlib.contextmanager
def _opened(workdir: str | os.PathLike[str], *, best: bool = False) -> Iterator[tuple[Checkpoints, int]]:
    """Opens a run's checkpoints; yields them with the last step, or the best one if there is one, which is whole."""
    folder = pathlib.Path(workdir) / "checkpoints"
    if latest_step(pathlib.Path(workdir)) is None:
        raise UserError(f"--workdir={workdir} has no complete checkpoint yet; let the training run longer")
    with Checkpoints(pathlib.Path(workdir), read_only=True) as checkpoints:
        step = (checkpoints.best_step if best else None) or checkpoints.latest_step
        assert step is not None
        if reason := checksums.damage(folder / str(step)):
            raise UserError(
                f"checkpoint {step} in {folder} is damaged ({reason}); run the training command again, which resumes "
                "from the checkpoint before"
            )
        yield checkpoints, step


def _get(tree: Any, path: tuple[str, ...]) -> Any:
    return functools.reduce(operator.getitem, path, tree)


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def abstract_state(method: Method) -> Any:
    """Returns the structure, shapes and types of the method's state without computing it."""
    return jax.eval_shape(method.init, jax.random.key(0), method.network.abstract_params())
