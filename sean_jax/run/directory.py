"""A run directory: what is in it, and what of it a resumed run keeps."""

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

# What a run directory may hold before there is a run in it: stages that the run needs first.
STAGES = "stages"


def config_path(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "config.json"


def exists(workdir: pathlib.Path) -> bool:
    """Whether there is a run in the directory."""
    return config_path(workdir).exists()


def check(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Checks that ``experiment`` can begin in the directory or is the one already there; touches nothing.

    Raises:
      UserError: the directory holds a run of another configuration (the differing settings are named), something
        that is no run, or is a file.
    """
    if exists(workdir):
        old, new = load(workdir), experiment
        changed = differences(old.config.flat(), new.config.flat())
        if old.label_space != new.label_space:
            changed.append("the label space's definition")
        if changed:
            raise UserError(
                f"--workdir={workdir} holds a run of another configuration ({'; '.join(changed)}); "
                "give the same settings to resume it, or another --workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a folder")
    elif workdir.exists() and any(path.name != STAGES for path in workdir.iterdir()):
        raise UserError(f"--workdir={workdir} is not empty and holds no run (config.json); give another folder")


def check_data(workdir: pathlib.Path, data: dict[str, str]) -> None:
    """Checks that the run already there, if any, read the same data; ``data``: see :func:`create`.

    Raises:
      UserError: a data set's description or list of images has changed.
    """
    before = json.loads(config_path(workdir).read_text(encoding="utf-8")).get("data", {}) if exists(workdir) else {}
    if changed := [name for name in before if before[name] != data.get(name)]:
        raise UserError(
            f"--workdir={workdir} holds a run on other data: the description or the list of images of its "
            f"{' and '.join(changed)} set has changed; restore it to resume the run, or give another --workdir"
        )


def create(workdir: pathlib.Path, experiment: Experiment, data: dict[str, str]) -> None:
    """Makes the directory, if it is not there, with ``config.json`` in it; where that fails, it leaves neither.

    Args:
      data: what a set is for (source, target, scored) → :func:`sean_jax.run.plan.fingerprint` of it.
    """
    if exists(workdir):
        return
    before = workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        write_json(config_path(workdir), {"version": sean_jax.__version__, **experiment.to_json(), "data": data})
    except BaseException:
        if not before:
            workdir.rmdir()
        raise


@contextlib.contextmanager
def claimed(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in the directory; the system gives it free when a process is killed.

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
        pass  # a file system without locks is no reason to refuse
    try:
        yield
    finally:
        os.close(directory)


def load(workdir: str | os.PathLike[str]) -> Experiment:
    """The experiment in a run directory.

    Raises:
      UserError: there is none, or another version of this package wrote it.
    """
    path = config_path(pathlib.Path(workdir))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "version" not in content and "settings" in content:
            raise UserError(
                f"{path} was written by sean-jax 0.1.0; resume, evaluate or export (port_weights) this run with that "
                f"version; this is {sean_jax.__version__}"
            )
        return Experiment.from_json(content)
    except FileNotFoundError:
        raise UserError(f"--workdir={workdir} holds no run (config.json is missing); train one there first") from None
    except (ValueError, KeyError, TypeError) as error:  # no JSON, other fields, or none of the right kind
        raise UserError(f"{path} is not a configuration of this version ({error!r}); train anew") from None


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON so that the file is either the old one or the whole new one."""
    atomic.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_parameters(workdir: pathlib.Path, params: dict[str, Any]) -> None:
    """Writes ``parameters.txt``: path, shape, type and size of every parameter, by network."""
    lines = []
    for name, tree in params.items():
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        rows = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
        width = max(len(path) for path, _ in rows)
        lines.append(f"{name}: {sum(leaf.size for _, leaf in rows):,} parameters")
        lines += [f"  {path:<{width}}  {leaf.dtype}{list(leaf.shape)}  {leaf.size:,}" for path, leaf in rows]
    atomic.write(workdir / "parameters.txt", "\n".join(lines) + "\n")


class MetricsFile:
    """``metrics.jsonl`` and ``timing.jsonl``: one object a line, a step at most once.

    The first holds what a run computes, so that two equal runs leave equal files; times stand in the second alone.
    """

    def __init__(self, path: pathlib.Path, restored_step: int):
        """Opens the file and drops every line past ``restored_step``: those steps are taken again.

        Raises:
          UserError: a line is damaged. (A last line that was cut off when its process was killed is dropped.)
        """
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        kept = [line for number, line in enumerate(whole, 1) if parse_line(line, path, number)["step"] <= restored_step]
        atomic.write(path, b"".join(kept))
        self._file = path.open("a")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a line; it is with the operating system when this returns."""
        self._file.write(json.dumps({"step": step} | metrics) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
