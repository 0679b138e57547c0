"""Fixtures of all tests, which see four CPU devices. Tests of commands share tiny data sets and a finished run.

Most of the time goes to compilation, so tests compile without XLA's expensive passes and share compiled programs.
The README's command and a parity case are compiled as for users. JAX promotes neither types nor ranks.
"""

# ruff: noqa: E402 (the environment comes before what reads it)
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# XLA's older CPU code generator compiles in less than half the time. A version of XLA without it rejects the flag.
_FAST_COMPILATION = "--xla_cpu_use_fusion_emitters=false"

if "SEAN_JAX_TEST_SESSION" not in os.environ:  # the first process of a test session; the others inherit
    os.environ["SEAN_JAX_TEST_SESSION"] = tempfile.mkdtemp(prefix="sean_jax_tests_")
    probe = [sys.executable, "-c", "import jax; jax.devices()"]
    known = (
        subprocess.run(probe, env=os.environ | {"XLA_FLAGS": _FAST_COMPILATION}, capture_output=True).returncode == 0
    )
    os.environ["SEAN_JAX_TEST_XLA_FLAGS"] = _FAST_COMPILATION if known else ""
_SESSION = os.environ["SEAN_JAX_TEST_SESSION"]

_FLAGS = (os.environ.get("XLA_FLAGS", ""), os.environ["SEAN_JAX_TEST_XLA_FLAGS"])
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, "--xla_force_host_platform_device_count=4"]).strip()
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(_SESSION, "cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import commands
import pytest
import streets

from sean_jax.data.concurrency import lock

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_unconfigure(config) -> None:
    if not hasattr(config, "workerinput"):  # not in a worker: all of them have ended
        shutil.rmtree(_SESSION, ignore_errors=True)


@pytest.fixture
def shared() -> pathlib.Path:
    """The folder of real images and parity cases beside the checkout; skips the test if it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def session_dir() -> pathlib.Path:
    """The folder that all test processes share; it holds prepared data and compiled programs."""
    folder = pathlib.Path(_SESSION)
    os.environ["SEAN_JAX_DATA_DIR"] = str(folder / "data")  # inherited by processes that are forked later
    return folder


@pytest.fixture(scope="session")
def roads(session_dir) -> dict[str, object]:
    """Flags of a training run: tiny folders in the layouts of GTA-5 and Cityscapes, 4 steps, a narrow network."""
    with lock(session_dir / "roads.lock"):
        if not (session_dir / "roads").is_dir():
            streets.gta5(session_dir / "drawing/gta5")
            streets.cityscapes(session_dir / "drawing/cityscapes")
            (session_dir / "drawing").rename(session_dir / "roads")
    return {
        **{"source": "gta5", "source_dir": session_dir / "roads/gta5"},
        **{"target": "cityscapes", "target_dir": session_dir / "roads/cityscapes", "data_dir": session_dir / "data"},
        **{"height": 16, "width": 32, "width_multiplier": 1 / 32, "fc_channels": 256, "batch_size": 2},
        **{"steps": 4, "learning_rate": 1e-3, "log_every": 1, "eval_every": 2, "save_every": 1},
    }


@pytest.fixture(scope="session")
def finished(session_dir, roads) -> pathlib.Path:
    """The directory of a finished run of ``roads``; do not write to it."""
    workdir = session_dir / "finished"
    with lock(session_dir / "finished.lock"):
        if not workdir.is_dir():
            result = commands.run(session_dir / "output", "train", workdir=session_dir / "training", **roads)
            assert (result.code, result.said()) == (0, [])
            (session_dir / "training").rename(workdir)
    return workdir


@pytest.fixture(scope="session")
def on_two_devices(session_dir, roads) -> pathlib.Path:
    """The directory of the same run on two devices; do not write to it."""
    workdir = session_dir / "on_two_devices"
    with lock(session_dir / "on_two_devices.lock"):
        if not workdir.is_dir():
            training = session_dir / "training_on_two_devices"
            result = commands.run(session_dir / "output", "train", workdir=training, devices=2, **roads)
            assert (result.code, result.said()) == (0, [])
            assert "batch 2 on 2 of 2 cpu device(s)" in result.stdout
            training.rename(workdir)
    return workdir


@pytest.fixture(scope="session")
def shallow_roads(roads) -> dict[str, object]:
    """Settings of ``roads`` for runs in this process, on the network of :mod:`shallow`, which traces faster."""
    import shallow

    from sean_jax.models import NETWORKS

    NETWORKS["shallow"] = shallow.Shallow
    of_deeplab = ("width_multiplier", "fc_channels")
    settings = {name: value for name, value in roads.items() if name not in of_deeplab}
    return settings | {name: str(x) for name, x in roads.items() if name.endswith("_dir")} | {"architecture": "shallow"}


@pytest.fixture(scope="session")
def train_here(roads):
    """Trains with the settings of ``roads`` and changes in this process, where many runs share compiled programs.

    It saves most of the time of a command. Tests that use it belong to the group ``runs``.
    """
    from sean_jax.run import stages

    def run(workdir: pathlib.Path, **changes) -> None:
        given = {name: str(x) if isinstance(x, pathlib.Path) else x for name, x in (roads | changes).items()}
        assert stages.train(given, workdir)

    return run


@pytest.fixture(scope="session")
def finished_here(train_here, tmp_path_factory) -> pathlib.Path:
    """The directory of a finished run of ``roads`` by ``train_here``; do not write to it."""
    workdir = tmp_path_factory.mktemp("here") / "finished"
    train_here(workdir)
    return workdir


@pytest.fixture
def run_copy(finished, tmp_path) -> pathlib.Path:
    """A copy of the finished run, which a test may change."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def train(tmp_path, roads):
    """Runs the command with the flags of ``roads`` and changes; ``None`` omits a flag."""

    def run(*words, **changes) -> commands.Result:
        flags = roads | changes
        return commands.run(tmp_path / "output", "train", *words, **{k: v for k, v in flags.items() if v is not None})

    return run
