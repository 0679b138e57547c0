import os
import subprocess
import sys

import jax
import pytest

from sean_jax.errors import UserError
from sean_jax.run import loop
from sean_jax.run.determinism import XLA_FLAGS, request_deterministic_kernels
from sean_jax.run.plan import plan


def test_flags_are_set_before_devices_are_used():
    program = (
        "import os; from sean_jax.run import determinism; determinism.request_deterministic_kernels(); "
        "determinism.request_deterministic_kernels(); print(os.environ['XLA_FLAGS'])"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["--xla_force_host_platform_device_count=2", *XLA_FLAGS]


def test_a_late_request_is_refused(monkeypatch, tmp_path):
    """The run must not record a setting that was not applied, also when started through Python."""
    jax.devices()
    with pytest.raises(UserError, match="deterministic=True comes too late"):
        loop.train(plan({"data_dir": str(tmp_path), "deterministic": True}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("XLA_FLAGS", " ".join(XLA_FLAGS))
    request_deterministic_kernels()
