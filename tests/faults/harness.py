"""Makes faults happen to runs, finishes the runs, and compares them with one that nothing disturbed."""

import itertools
import pathlib
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import commands
import rundirs
import shallow
import streets
import victim

from sean_jax.models import NETWORKS

# Longest delay after a moment began, in seconds: about what it takes on two cores.
DELAYS = {"preparation": 0.4, "step": 0.03, "evaluation": 0.1, "checkpoint": 0.1, "checksums": 0.01, "resuming": 0.1}
SETTINGS = {
    **{"architecture": "shallow", "height": 16, "width": 32, "batch_size": 2, "learning_rate": 1e-3, "loader": "grain"},
    **{"steps": 12, "log_every": 1, "eval_every": 4, "save_every": 2},
}


class Campaign:
    """Runs on tiny data sets in ``folder``, all with the same settings; the first one is undisturbed.

    Each method makes one kind of fault happen to a run of its own, finishes the run, and asserts that it ended as the
    undisturbed one: the same bits in the last state, in ``metrics.jsonl`` and in ``evaluation.json``. It returns a
    line for every fault that happened.
    """

    def __init__(self, folder: pathlib.Path, seed: int, *, optimized: bool = False, **changes: object):
        NETWORKS["shallow"] = shallow.Shallow  # to read the states
        self._folder, self._random, self._optimized = folder, random.Random(seed), optimized
        self._numbers = itertools.count()
        sources = {"source": "gta5", "source_dir": streets.gta5(folder / "gta5")}
        targets = {"target": "cityscapes", "target_dir": streets.cityscapes(folder / "cityscapes")}
        self._flags = {**SETTINGS, **sources, **targets, **changes}
        self._workdir, self._data_dir = self._reference = folder / "reference", folder / "reference_data"
        result = self._train()
        assert (result.code, result.said()) == (0, []), result

    def kills(self, *signals: str, moments: Sequence[str] = ()) -> list[str]:
        """Sends one of the signals after each of the moments, by default up to four random ones."""
        if not moments:
            moments = ["preparation"] * self._random.randint(0, 1)
            moments += self._random.choices(["step", "evaluation", "checkpoint", "checksums"], k=2)
            moments += ["resuming"] * self._random.randint(0, 1)
        self._begin()
        happened = []
        for moment, signal in zip(moments, itertools.cycle(signals), strict=False):
            nth = self._random.randint(1, 3) if moment in ("step", "checkpoint", "checksums") else 1
            result = self._train(fault=f"{moment}:{nth}:{self._random.uniform(0, DELAYS[moment]):.4f}:{signal}")
            assert result.said() == [], result.stderr
            if result.code != 0 or "stopped by" in result.stdout:  # else it was over before
                assert result.code in (0, -victim.signal.Signals[signal]), result
                unfinished = ", ".join(self._left()) or "nothing"
                happened.append(f"{signal} after {moment} {nth} began; left unfinished: {unfinished}")
        self._finish()
        return happened

    def damaged_checkpoint(self) -> list[str]:
        """Flips a bit of a file of the last checkpoint, or cuts it short."""
        self._begin()
        shutil.copytree(self._reference[0], self._workdir)
        shutil.copytree(self._reference[1], self._data_dir)
        folder = self._workdir / "checkpoints" / str(self._flags["steps"])
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder]
        file = self._random.choices(files, [path.stat().st_size for path in files])[0]
        content = bytearray(file.read_bytes())
        place = self._random.randrange(len(content))
        cut = self._random.random() < 0.5
        if cut:
            del content[place:]
        else:
            content[place] ^= 1 << self._random.randrange(8)
        file.write_bytes(content)
        result = self._finish()
        name = file.relative_to(folder).as_posix()
        assert f"was damaged ({name} differs from its checksum)" in result.stdout, result.stdout
        return [f"checkpoint file {name} {'cut' if cut else 'flipped'} at {place}"]

    def rotten_records(self) -> list[str]:
        """Flips a bit in a prepared set while a run reads it; mends what the message says as it says."""
        self._begin()
        result = self._train(fault=f"step:1:{self._random.uniform(0, DELAYS['step']):.4f}:rot")
        happened = []
        while result.code:
            assert result.code == 1, result
            (line,) = result.said()
            damaged, _, way_out = line.removeprefix("sean_jax.train: the prepared set ").partition(" is damaged (")
            assert way_out.endswith("; delete it to have it prepared anew"), line
            shutil.rmtree(damaged)
            happened.append(line)
            result = self._train()
        self._compare(result)
        return happened

    def full_disk(self) -> list[str]:
        """Limits the size of files, which stands for a full disk."""
        self._begin()
        if self._random.random() < 0.7:  # else preparation fails, which writes the largest files
            shutil.copytree(self._reference[1], self._data_dir)
        result = self._train(file_limit=int(10 ** self._random.uniform(3.6, 4.6)))  # the output is a file too
        if result.code == 0:
            self._compare(result)
            return []
        assert result.code == 1, result
        (line,) = result.said()
        assert "File too large" in line, line
        self._finish()
        return [line]

    def jumping_clock(self) -> list[str]:
        """Lets the wall clock jump by days."""
        self._begin()
        self._compare(self._train(fault="clock"))
        return ["jumped by up to ten days twenty times a second"]

    def _begin(self) -> None:
        """Begins a run with nothing, not even prepared data, and deletes the one before."""
        if self._workdir != self._reference[0]:
            shutil.rmtree(self._workdir, ignore_errors=True)
            shutil.rmtree(self._data_dir, ignore_errors=True)
        number = next(self._numbers)
        self._workdir, self._data_dir = self._folder / f"run{number}", self._folder / f"data{number}"

    def _train(self, *, file_limit: int | None = None, **fault: str) -> commands.Result:
        return commands.run(
            self._folder / "output",
            "../tests/faults/victim.py",
            optimized=self._optimized,
            file_limit=file_limit,
            **self._flags | {"workdir": self._workdir, "data_dir": self._data_dir} | fault,
        )

    def _finish(self) -> commands.Result:
        """Runs the command again, undisturbed."""
        result = self._train()
        self._compare(result)
        return result

    def _compare(self, result: commands.Result) -> None:
        """Asserts that the command ended well, and the run as the undisturbed one."""
        assert (result.code, result.said()) == (0, []), result
        run, undisturbed = self._workdir, self._reference[0]
        for name in ("metrics.jsonl", "evaluation.json", "parameters.txt"):
            assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), f"{run / name} differs"
        assert rundirs.same_state(run, undisturbed), f"the state of {run} differs"
        assert not self._left()

    def _left(self) -> list[str]:
        """The files and folders that were to be renamed when they were complete."""
        parts = (".orbax-checkpoint-tmp", "incomplete.")
        paths = itertools.chain(self._workdir.rglob("*"), self._data_dir.rglob("*"))
        return [path.name for path in paths if any(part in path.name for part in parts)]


def repeated(fault: Callable[[], list[str]], count: int) -> Iterator[str]:
    """Yields the lines of at least ``count`` faults."""
    while count > 0:
        happened = fault()
        count -= len(happened)
        yield from happened
