"""Times the training step of sean_jax on random arrays that are already on the device.

    python experiments/benchmarks/train_step.py --precision=bfloat16 --batch=1
    python experiments/benchmarks/train_step.py --precision=float32 --height=128 --width=256 --steps=6 --warmup=2

On a CPU, put GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in front of the command: XLA allocates its buffers anew in every
step, and huge pages (glibc 2.35 or later) save 15 % of the CPU time. This holds for sean_jax.train too.

Prints the milliseconds per step, with steps queued and with each step waited for; images per second; TFLOP/s counted
from the network's arithmetic, and their share of the rate of a large matrix product; the peak memory; and the time to
the first step. Each process times one case, so that the allocator's peak is that case's. --cache_dir names a
compilation cache: run the command twice to time a cold and a warm start.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from sean_jax.config import from_flat_settings
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.experiment import Experiment
from sean_jax.methods import METHODS, Method
from sean_jax.models import DeepLab
from sean_jax.models.network import PRECISIONS
from sean_jax.training.parallel import AXIS, initial_state, mapped_step, replicate, shard

# Settings with which every step makes all of its method's updates.
ALL_UPDATES = {"cca": {"class_alignment_start": 0.0}, "cycada": {"accuracy_threshold": 0.0}}


def make_method(case: argparse.Namespace, name: str = "sean", **settings: Any) -> Method:
    """A method and its network with the settings of the case's preset."""
    presets = DeepLab.PRESETS.get(case.preset, {}) | METHODS[name].PRESETS.get(case.preset, {})
    known = {
        "method": name,
        "height": case.height,
        "width": case.width,
        "steps": 1000,
        "precision": case.precision,
        "initialization": "scratch",
        "input_convention": "bgr_mean",
    }
    classes = tuple(f"class {i}" for i in range(case.classes))
    space = LabelSpace("benchmark", classes, ((0, 0, 0),) * case.classes, ((),) * case.classes)
    return Experiment(from_flat_settings({**presets, **known, **settings}), space).method()


def batch_of(method: Method, case: argparse.Namespace) -> dict[str, np.ndarray]:
    """Random arrays with what the method reads."""
    batch = measure.random_batch(case)
    rng = np.random.default_rng(1)
    extras = {  # beside the prepared target, for methods that read them
        "superpixels": rng.integers(0, 100, (case.batch, case.height, case.width)).astype(np.uint8),
        "superpixel_labels": rng.integers(0, case.classes, (case.batch, 100)).astype(np.uint8),
        "label_distribution": rng.dirichlet(np.ones(case.classes), case.batch).astype(np.float32),
    }
    return batch | {f"target_{name}": extras[name] for name in method.READS.target_extras}


def matrix_product_tflops(precision: str) -> float:
    """The measured rate of one large matrix product in this precision."""
    dtype, precision_of_products = PRECISIONS[precision]
    n = 8192 if jax.default_backend() == "gpu" else 1024
    a = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=precision_of_products))
    product(a).block_until_ready()
    return 2 * n**3 / measure.queued_seconds(lambda: product(a), jax.block_until_ready, 10) / 1e12


def program_gib(method: Method, state: Any, batch: dict[str, Any], rng: Any) -> float:
    """The memory that the compiler plans for the step: arguments, results, temporaries; donated arguments once."""
    mapped = jax.jit(lambda *a: jax.vmap(method.step, (None, 0, None), None, axis_name=AXIS)(*a), donate_argnums=0)
    found = mapped.lower(state, batch, rng).compile().memory_analysis()
    assert found is not None
    total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return (total - found.alias_size_in_bytes) / 2**30


class Training:
    """A method's step with its state and a random batch on the first device."""

    def __init__(self, case: argparse.Namespace, **settings: Any):
        self.device = jax.local_devices()[0]
        method = make_method(case, case.method, **settings)
        state = initial_state(method, jax.random.key(0), method.network.init_params(jax.random.key(0)))
        self.method, self.state, self.rng = replicate((method, state, jax.random.key(1)), [self.device])
        self.batch = shard(batch_of(method, case), [self.device])
        self._step = mapped_step((self.device,))

    def use_jit(self) -> None:
        """Makes ``run`` use ``jit`` on one device in place of ``pmap``, to compare them."""
        self._step = jax.jit(
            jax.vmap(lambda method, *args: method.step(*args), (None, None, 0, None), None, axis_name=AXIS),
            donate_argnums=1,
        )

    def run(self) -> Any:
        """Queues one step and returns its metrics."""
        self.state, metrics = self._step(self.method, self.state, self.batch, self.rng)
        return metrics

    def wait(self, metrics: Any) -> None:
        jax.block_until_ready((self.state, metrics))

    def program(self) -> str:
        """XLA's optimised program of the step."""
        return self._step.lower(self.method, self.state, self.batch, self.rng).compile().as_text() or ""


def main() -> None:
    case = measure.parse(__doc__ or "", cache_dir="", remat=False, accumulate=1, plan=False, jit=False, method="sean")
    if case.cache_dir:
        jax.config.update("jax_compilation_cache_dir", case.cache_dir)
    chosen = ALL_UPDATES.get(case.method, {})
    training = Training(case, remat=case.remat, accumulate_steps=case.accumulate, **chosen)
    if case.jit:
        training.use_jit()
    built = time.perf_counter()
    training.wait(training.run())
    values: dict[str, Any] = {
        "s_to_first_step": measure.seconds_since_start(),
        "s_of_which_step": time.perf_counter() - built,
    }
    values |= measure.steps_measured(training.run, training.wait, case)
    stats = training.device.memory_stats()
    if stats:
        values["peak_gib_allocator"] = stats["peak_bytes_in_use"] / 2**30
    else:
        values["peak_gib_process"] = measure.peak_rss_gib()
    if case.plan:
        values["planned_gib"] = program_gib(training.method, training.state, training.batch, training.rng)
    values["matrix_product_tflops_per_s"] = matrix_product_tflops(case.precision)
    values["share_of_matrix_product"] = values["tflops_per_s"] / values["matrix_product_tflops_per_s"]
    measure.report(case, "train_step", f"jax {jax.__version__}", training.device.device_kind, values)


if __name__ == "__main__":
    main()
