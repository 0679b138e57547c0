"""Fixtures of all tests, which see four CPU devices. Tests of commands share tiny data sets and a finished run.

Most of the time goes to compilation, so tests compile without XLA's expensive passes. Commands use all passes, as
they do for users, unless a test asks otherwise.
"""

import os
import pathlib
import shutil

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import commands
import pytest
import streets

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> pathlib.Path:
    """The folder of real images and parity cases beside the checkout; skips the test if it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def session_dir(tmp_path_factory) -> pathlib.Path:
    """A folder that tests share, with prepared data and compiled programs."""
    folder = tmp_path_factory.mktemp("session")
    commands.CACHE["jax_compilation_cache_dir"] = str(folder / "cache")
    before = os.environ.get("SEAN_JAX_DATA_DIR")
    os.environ["SEAN_JAX_DATA_DIR"] = str(folder / "data")  # inherited by processes that are forked later
    yield folder
    os.environ.pop("SEAN_JAX_DATA_DIR")
    if before is not None:
        os.environ["SEAN_JAX_DATA_DIR"] = before


@pytest.fixture(scope="session")
def roads(session_dir) -> dict[str, object]:
    """Flags of a training run: tiny folders in the layouts of GTA-5 and Cityscapes, 4 steps, a narrow network."""
    streets.gta5(session_dir / "gta5")
    streets.cityscapes(session_dir / "cityscapes")
    return {
        **{"source": "gta5", "source_dir": session_dir / "gta5"},
        **{"target": "cityscapes", "target_dir": session_dir / "cityscapes", "data_dir": session_dir / "data"},
        **{"height": 16, "width": 32, "width_multiplier": 1 / 32, "fc_channels": 256, "batch_size": 2},
        **{"steps": 4, "learning_rate": 1e-3, "log_every": 1, "eval_every": 2, "save_every": 1},
    }


@pytest.fixture(scope="session")
def finished(session_dir, roads) -> pathlib.Path:
    """The directory of a finished run of ``roads``; do not write to it."""
    workdir = session_dir / "finished"
    result = commands.run(session_dir / "output", "train", workdir=workdir, **roads)
    assert (result.code, result.said()) == (0, [])
    return workdir


@pytest.fixture
def run_copy(finished, tmp_path) -> pathlib.Path:
    """A copy of the finished run, which a test may change."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
