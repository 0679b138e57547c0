"""What must hold on an NVIDIA GPU. Where JAX sees none, all of this is skipped.

JAX_PLATFORMS=cuda python -m pytest -m gpu -n 0
"""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rundirs
from jax import lax

from sean_jax import verify
from sean_jax.ops import convolution
from sean_jax.verify import PARITY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() != "gpu", reason="JAX sees no NVIDIA GPU"),
]
ROOT = pathlib.Path(__file__).resolve().parents[2]

# (channels in, channels out, dilation) of layers of VGG-16, fc6, fc7 and the classifier on a map of 30×44 positions.
LAYERS = [(3, 64, 1), (512, 512, 2), (512, 1024, 4), (1024, 1024, 4), (1024, 19, 6), (1024, 19, 24)]


@pytest.mark.parametrize(
    ("dtype", "precision", "bound"),
    [
        (jnp.float32, lax.Precision.HIGHEST, 1e-5),
        (jnp.float32, lax.Precision.DEFAULT, 2e-3),  # TF32 keeps 10 bits of the operands
        (jnp.bfloat16, lax.Precision.DEFAULT, 6e-3),
    ],
    ids=["float32", "tf32", "bfloat16"],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_gpus_convolutions_are_those_of_float32(layer, dtype, precision, bound):
    """Value and both gradients, against XLA's plain convolution of the same operands in float32."""
    channels_in, channels_out, dilation = layer
    rng = np.random.default_rng(0)
    x, kernel, gradient = (
        jnp.asarray(rng.normal(size=shape), dtype)
        for shape in ((2, 30, 44, channels_in), (3, 3, channels_in, channels_out), (2, 30, 44, channels_out))
    )

    def all_three(operation, *operands):
        value, pull_back = jax.vjp(operation, *operands)
        return value, *pull_back(gradient.astype(value.dtype))

    found = jax.jit(
        lambda *operands: all_three(lambda x, k: convolution.conv3x3(x, k, dilation, precision), *operands)
    )(x, kernel)
    exact = jax.jit(
        lambda *operands: all_three(
            lambda x, k: convolution.plain_conv3x3(x, k, dilation=dilation, precision=lax.Precision.HIGHEST), *operands
        )
    )(x.astype(jnp.float32), kernel.astype(jnp.float32))
    pairs = zip(found, exact, strict=True)
    errors = [float(jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)) for a, b in pairs]
    assert max(errors) < bound, errors


@pytest.mark.parametrize("case", sorted(path.name for path in PARITY.glob("*.npz")))
def test_a_parity_case_agrees_on_the_gpu(case, capsys):
    """The numbers of the authors' code, in float32."""
    verify.verify([str(PARITY / case)])
    assert "all quantities agree" in capsys.readouterr().out


def test_deterministic_runs_are_equal_and_resume_to_the_bit(tmp_path):
    """A run of 12 steps, the same again, and one whose second half a new process makes."""
    flags = ["--preset=quick", "--steps=12", "--save_every=6", "--eval_every=12", "--loader=grain", "--deterministic"]
    flags += ["--height=64", "--width=128", "--precision=bfloat16", f"--data_dir={tmp_path / 'data'}"]

    def train(workdir: pathlib.Path) -> None:
        line = [sys.executable, "-m", "sean_jax.train", f"--workdir={workdir}", *flags]
        environment = os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
        subprocess.run(line, check=True, cwd=ROOT, env=environment, timeout=300)

    whole, again, resumed = (tmp_path / name for name in ("whole", "again", "resumed"))
    train(whole)
    train(again)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "12")
    train(resumed)
    for other in (again, resumed):
        assert rundirs.same_state(whole, other)
        assert rundirs.lines(whole) == rundirs.lines(other)
