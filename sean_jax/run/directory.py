"""The run directory: creates, checks, locks and reads its files."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

import sean_jax
from sean_jax import atomic
from sean_jax.config import differences
from sean_jax.errors import UserError
from sean_jax.experiment import Experiment
from sean_jax.run.records import parse_line
from sean_jax.untrusted import parse_json

STAGES = "stages"  # runs that a run needs first; they are there before it starts
# What a run writes beside config.json. Other entries are others': a scheduler's log, .gitignore, lost+found.
_OWN = frozenset(
    ("checkpoints", "metrics.jsonl", "timing.jsonl", "evaluation.json", "parameters.txt", "pictures", "tensorboard")
)


def config_path(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "config.json"


def exists(workdir: pathlib.Path) -> bool:
    """Returns whether the directory contains a run."""
    return config_path(workdir).exists()


def check(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Checks that ``experiment`` can start in the directory or resume there; changes nothing.

    Raises:
      UserError: the directory contains a run with a different configuration (the message names the settings) or
        parts of one, or is a file.
    """
    if exists(workdir):
        old, new = load(workdir), experiment
        changed = differences(old.config.flat(), new.config.flat())
        if old.label_space != new.label_space:
            changed.append("the label space's definition")
        if changed:
            raise UserError(
                f"--workdir={workdir} contains a run with a different configuration ({'; '.join(changed)}); "
                "use the same settings to resume it, or another --workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a new or empty folder")
    elif workdir.exists() and (found := sorted(path.name for path in workdir.iterdir() if path.name in _OWN)):
        raise UserError(
            f"--workdir={workdir} has {', '.join(found)} but no config.json, which a run needs; restore that file, or "
            "give another folder"
        )


def check_data(workdir: pathlib.Path, data: dict[str, str]) -> None:
    """Checks that a run in the directory, if there is one, used the same data.

    Args:
      workdir: the run directory.
      data: see :func:`create`.

    Raises:
      UserError: the description or the image list of a data set has changed.
    """
    before = known_data(workdir)
    if changed := [name for name in before if before[name] != data.get(name)]:
        raise UserError(
            f"--workdir={workdir} contains a run on different data: the description or the image list of its "
            f"{' and '.join(changed)} set has changed; restore it to resume the run, or use another --workdir"
        )


def known_data(workdir: pathlib.Path) -> dict[str, str]:
    """The ``data`` of :func:`create` of the run in the directory; empty if there is none."""
    if not exists(workdir):
        return {}
    return json.loads(config_path(workdir).read_text(encoding="utf-8")).get("data", {})


def create(workdir: pathlib.Path, experiment: Experiment, data: dict[str, str]) -> None:
    """Creates the directory and its ``config.json``, unless they exist. A failure leaves neither behind.

    Args:
      workdir: the run directory.
      experiment: the resolved configuration.
      data: role of a data set (source, target, scored) → its :func:`sean_jax.run.plan.fingerprint`.
    """
    if exists(workdir):
        return
    before = workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        content = {"version": sean_jax.__version__, **experiment.to_json(), "data": data}
        if substituted := experiment.method().SUBSTITUTED:
            content["substituted"] = dict(substituted)
        write_json(config_path(workdir), content)
    except BaseException:
        if not before:
            workdir.rmdir()
        raise


def resume(workdir: pathlib.Path, experiment: Experiment, step: int | None) -> None:
    """Takes over settings that may change into ``config.json``; weights that are no longer named stay noted.

    Args:
      workdir: the run directory, locked and checked.
      experiment: the resolved configuration.
      step: of the last checkpoint, if there is one.
    """
    if step is not None:
        _extend(workdir, experiment, step)
    content = json.loads(config_path(workdir).read_text(encoding="utf-8"))
    settings = experiment.to_json()["settings"]
    if step is not None and step > settings["steps"]:  # it has gone further already
        settings["steps"] = content["settings"]["steps"]
    settings["init_weights"] = settings["init_weights"] or content["settings"].get("init_weights")
    if settings != content["settings"]:
        write_json(config_path(workdir), content | {"settings": settings})


def _extend(workdir: pathlib.Path, experiment: Experiment, step: int) -> None:
    """If the run in the directory ended at ``step`` and goes on, forgets what it did there because it was the last.

    A run that had been longer from the start would not have logged and scored that step, unless it was due.
    """
    before = load(workdir).config
    assert experiment.config.steps is not None
    if before.steps != step or experiment.config.steps <= step:
        return
    is_scored, is_logged = step % before.eval_every == 0, step % before.log_every == 0
    for name in ("metrics.jsonl", "timing.jsonl"):
        path = workdir / name
        *earlier, last = path.read_bytes().splitlines(keepends=True) if path.exists() else [b""]
        values = json.loads(last) if last.endswith(b"\n") else {}
        if values.get("step") != step:
            continue
        is_score = {key: key.startswith("val/") or key == "evaluation_seconds" for key in values}
        kept = {key: v for key, v in values.items() if key == "step" or (is_scored if is_score[key] else is_logged)}
        lines = [*earlier, (json.dumps(kept) + "\n").encode()] if len(kept) > 1 else earlier
        atomic.write(path, b"".join(lines))
    if not is_scored:
        (workdir / "pictures" / f"step_{step:06d}.png").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Locks the directory against other training processes; the system releases the lock of a killed process.

    Raises:
      UserError: another process is training there.
    """
    directory = os.open(workdir, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        raise UserError(f"another process is training in --workdir={workdir}; wait for it or stop it") from None
    except OSError:
        pass  # the file system does not support locks
    try:
        yield
    finally:
        os.close(directory)


def load(workdir: str | os.PathLike[str]) -> Experiment:
    """Reads the experiment of a run directory.

    Raises:
      UserError: there is none, or another version of this package wrote it.
    """
    path = config_path(pathlib.Path(workdir))
    try:
        content = parse_json(path.read_bytes())
        if "version" not in content and "settings" in content:
            raise UserError(
                f"{path} was written by sean-jax 0.1.0; resume, evaluate or export (port_weights) this run with that "
                f"version; this is {sean_jax.__version__}"
            )
        return Experiment.from_json(content)
    except FileNotFoundError:
        raise UserError(
            f"--workdir={workdir} contains no run (config.json is missing); give the --workdir of a training run"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # not JSON, or not what was written there
        raise UserError(
            f"{path} is damaged or was written by another version ({error!r}); restore it, or train again in another "
            "--workdir"
        ) from None


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    atomic.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_parameters(workdir: pathlib.Path, params: dict[str, Any]) -> None:
    """Writes ``parameters.txt``: the path, type, shape and size of every parameter, by network."""
    lines = []
    for name, tree in params.items():
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        rows = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
        width = max(len(path) for path, _ in rows)
        lines.append(f"{name}: {sum(leaf.size for _, leaf in rows):,} parameters")
        lines += [f"  {path:<{width}}  {leaf.dtype}{list(leaf.shape)}  {leaf.size:,}" for path, leaf in rows]
    atomic.write(workdir / "parameters.txt", "\n".join(lines) + "\n")


class MetricsFile:
    """A writer for ``metrics.jsonl`` and ``timing.jsonl``: one JSON object per line, at most one line per step.

    Times have a file of their own, so that identical runs write identical ``metrics.jsonl`` files.
    """

    def __init__(self, path: pathlib.Path, restored_step: int):
        """Opens the file and removes the lines after ``restored_step``, whose steps are repeated.

        An incomplete last line, which a killed process may leave, is removed too.

        Raises:
          UserError: a line is damaged.
        """
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        kept = [line for number, line in enumerate(whole, 1) if parse_line(line, path, number)["step"] <= restored_step]
        atomic.write(path, b"".join(kept))
        self._file = path.open("a")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a line and passes it to the operating system."""
        self._file.write(json.dumps({"step": step} | metrics) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
