"""Times the evaluation of sean_jax, from uint8 arrays in host memory to one confusion matrix.

    python experiments/benchmarks/evaluation.py --precision=bfloat16 --batch=4 --steps=100

Images of --height x --width are predicted, and compared at twice that size as for Cityscapes. --steps counts batches.
"""

import time
from typing import Any

import jax
import measure
import numpy as np
from train_step import make_method

from sean_jax.scoring.predictor import Example, make_evaluator


def main() -> None:
    case = measure.parse(__doc__ or "")
    network = make_method(case).network
    params = network.init_params(jax.random.key(0))
    device = jax.local_devices()[0]
    evaluate = make_evaluator(network, [device], case.batch)
    examples = evaluation_examples(case)

    def images(batches: int) -> list[Any]:
        return [examples[i % len(examples)] for i in range(batches * case.batch)]

    evaluate({"network": params}, images(case.warmup))
    start = time.perf_counter()
    confusion = evaluate({"network": params}, images(case.steps))["network"]
    seconds = time.perf_counter() - start
    assert confusion.sum() == case.steps * case.batch * (examples[0].label != 255).sum()
    values = {"images_per_s": case.steps * case.batch / seconds, "ms_per_batch": 1e3 * seconds / case.steps}
    measure.report(case, "evaluation", f"jax {jax.__version__}", device.device_kind, values)


def evaluation_examples(case: Any) -> list[Example]:
    """A few different images with labels of twice their size."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, case.classes, (2 * case.height, 2 * case.width)).astype(np.uint8)
    label[: case.height // 4] = 255
    return [
        Example(str(i), rng.integers(0, 256, (case.height, case.width, 3)).astype(np.uint8), label) for i in range(8)
    ]


if __name__ == "__main__":
    main()
