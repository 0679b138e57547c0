"""Fixtures of all tests, which see four CPU devices. Tests of commands share tiny data sets and a finished run.

Most of the time goes to compilation, so tests compile without XLA's expensive passes and share compiled programs.
The README's command and a parity case are compiled as for users. JAX promotes neither types nor ranks.
"""

# ruff: noqa: E402 (the environment comes before what reads it)
import gc
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# XLA's older CPU code generator compiles in less than half the time. A plain schedule and a single module for LLVM save
# a further sixth. A version of XLA that lacks one of the flags rejects all.
_FAST_COMPILATION = (
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_enable_concurrency_optimized_scheduler=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)

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


def pytest_collection_finish(session) -> None:
    gc.freeze()  # what was imported stays; looking through it again and again takes 7 % of the time


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
    """Settings of a run of 4 steps: tiny folders in the layouts of GTA-5 and Cityscapes, the network of :mod:`shallow`.

    Commands (:mod:`commands`) know this network too. Grain takes less time to import than TensorFlow.
    """
    import shallow

    from sean_jax.models import NETWORKS

    NETWORKS["shallow"] = shallow.Shallow

    def draw(folder: pathlib.Path) -> None:
        streets.gta5(folder / "gta5")
        streets.cityscapes(folder / "cityscapes")

    folder = _once(session_dir / "roads", draw)
    return {
        **{"source": "gta5", "source_dir": str(folder / "gta5")},
        **{"target": "cityscapes", "target_dir": str(folder / "cityscapes")},
        **{"data_dir": str(session_dir / "data"), "architecture": "shallow", "loader": "grain"},
        **{"height": 16, "width": 32, "batch_size": 2},
        **{"steps": 4, "learning_rate": 1e-3, "log_every": 1, "eval_every": 2, "save_every": 1},
    }


@pytest.fixture(scope="session")
def finished(session_dir, roads) -> pathlib.Path:
    """The directory of a finished run of ``roads``; do not write to it."""

    def train(workdir: pathlib.Path) -> None:
        result = commands.run(session_dir / "output", "train", workdir=workdir, **roads)
        assert (result.code, result.said()) == (0, [])

    return _once(session_dir / "finished", train)


@pytest.fixture(scope="session")
def train_here(roads):
    """Trains with the settings of ``roads`` and changes in this process, where many runs share compiled programs.

    It saves most of the time of a command. Tests that use it belong to the group ``runs``.
    """
    from sean_jax.run import stages

    def run(workdir: pathlib.Path, **changes) -> None:
        given = {name: str(x) if isinstance(x, pathlib.Path) else x for name, x in changes.items()}
        assert stages.train(roads | given, workdir)

    return run


@pytest.fixture(scope="session")
def finished_here(session_dir, train_here) -> pathlib.Path:
    """The directory of a finished run of ``roads`` by ``train_here``, on two devices; do not write to it."""
    return _once(session_dir / "finished_here", train_here)


def _once(folder: pathlib.Path, make) -> pathlib.Path:
    """A folder that the first test process that needs it makes."""
    with lock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            make(folder.with_suffix(".part"))
            folder.with_suffix(".part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def deeplab_file(session_dir) -> pathlib.Path:
    """A file of weights, as ``port_weights`` writes it, of a narrow DeepLab with 19 classes and random parameters."""
    import builders
    import jax

    from sean_jax import weights
    from sean_jax.data.label_spaces import LABEL_SPACES

    def write(folder: pathlib.Path) -> None:
        experiment = builders.experiment("sean")._replace(label_space=LABEL_SPACES["19"])
        tensors = weights.from_params(experiment.network().init_params(jax.random.key(0)))
        folder.mkdir()
        weights.write(folder / "deeplab.npz", tensors, experiment.weights_metadata() | {"network": "teacher"})

    return _once(session_dir / "deeplab", write) / "deeplab.npz"


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
