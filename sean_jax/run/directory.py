"""A run directory: what is in it, and what of it a resumed run keeps."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from sean_jax.atomic import write_whole
from sean_jax.config import Config, architecture, differences
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError
from sean_jax.models.deeplab import Segmenter
from sean_jax.run.records import parse_line


class Run(NamedTuple):
    """A run's resolved configuration and the label space that its network predicts."""

    config: Config
    label_space: LabelSpace

    def network(self) -> Segmenter:
        """The network that the configuration describes."""
        assert self.config.initialization is not None
        assert self.config.input_convention is not None
        return Segmenter(
            num_classes=len(self.label_space.classes),
            input_convention=self.config.input_convention,
            initialization=self.config.initialization,
            precision=self.config.precision,
            remat=self.config.remat,
            **architecture(self.config),
        )

    def weights_metadata(self) -> dict[str, Any]:
        """What travels with the network's weights: to use them elsewhere and to know where they are from."""
        return {
            "format": "sean_jax",
            "version": 1,
            "architecture": architecture(self.config),
            "classes": self.label_space.to_dict(),
            "input_convention": self.config.input_convention,
            "height": self.config.height,
            "width": self.config.width,
            "method": self.config.method,
            "seed": self.config.seed,
            "selection": self.config.selection,
        }


def config_path(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "config.json"


def exists(workdir: pathlib.Path) -> bool:
    """Whether there is a run in the directory."""
    return config_path(workdir).exists()


def to_json(run: Run) -> dict[str, Any]:
    """The contents of ``config.json``."""
    settings = {name: getattr(run.config, name) for name in run.config.__dataclass_fields__}
    return {"settings": settings, "label_space": run.label_space.to_dict()}


def check(workdir: pathlib.Path, run: Run) -> None:
    """Checks that ``run`` can begin in the directory or is the one already there; touches nothing.

    Raises:
      UserError: the directory holds a run of another configuration (the differing settings are named), something
        that is no run, or is a file.
    """
    if exists(workdir):
        old, new = to_json(load(workdir)), to_json(run)
        changed = differences(old["settings"], new["settings"])
        if old["label_space"] != new["label_space"]:
            changed.append("the label space's definition")
        if changed:
            raise UserError(
                f"--workdir={workdir} holds a run of another configuration ({'; '.join(changed)}); "
                "give the same settings to resume it, or another --workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a folder")
    elif workdir.exists() and any(workdir.iterdir()):
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


def create(workdir: pathlib.Path, run: Run, data: dict[str, str]) -> None:
    """Makes the directory, if it is not there, with ``config.json`` in it; where that fails, it leaves neither.

    Args:
      data: what a set is for (source, target, scored) → :func:`sean_jax.run.plan.fingerprint` of it.
    """
    if exists(workdir):
        return
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        write_json(config_path(workdir), to_json(run) | {"data": data})
    except BaseException:
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


def load(workdir: str | os.PathLike[str]) -> Run:
    """The run in a directory.

    Raises:
      UserError: there is none.
    """
    path = config_path(pathlib.Path(workdir))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Run(Config(**content["settings"]), LabelSpace.from_dict(content["label_space"]))
    except FileNotFoundError:
        raise UserError(f"--workdir={workdir} holds no run (config.json is missing); train one there first") from None
    except (ValueError, KeyError, TypeError) as error:  # no JSON, other fields, or none of the right kind
        raise UserError(f"{path} is not a configuration of this version ({error!r}); train anew") from None


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON so that the file is either the old one or the whole new one."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
        write_whole(path, b"".join(kept))
        self._file = path.open("a")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Appends a line; it is with the operating system when this returns."""
        self._file.write(json.dumps({"step": step} | metrics) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
