"""Draws the seeded weights and inputs of SEAN's parity cases with NumPy alone."""

import numpy as np

from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.parity.seeded import check_size

# (Index in the authors' ``features``, input channels, output channels); 29 and 31 are fc6 and fc7.
_FEATURES = (
    (0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256),
    (17, 256, 512), (19, 512, 512), (21, 512, 512), (23, 512, 512), (25, 512, 512), (27, 512, 512),
    (29, 512, 1024), (31, 1024, 1024),
)  # fmt: skip


def seeded_state_dict(seed: int, num_classes: int) -> dict[str, np.ndarray]:
    """Draws a case's parameters, in a fixed order: float32, under the authors' names and in PyTorch's layouts."""
    rng = np.random.default_rng(seed)

    def normal(shape: tuple[int, ...], std: float) -> np.ndarray:
        return (rng.standard_normal(shape) * std).astype(np.float32)

    tensors = {}
    for index, fan_in, channels in _FEATURES:
        tensors[f"features.{index}.weight"] = normal((channels, fan_in, 3, 3), (2.0 / (9 * fan_in)) ** 0.5)
        tensors[f"features.{index}.bias"] = normal((channels,), 0.1)
    tensors["aconv.weight"] = normal((1, 1024, 1, 1), 0.0015)
    for branch in range(4):
        tensors[f"classifier.conv2d_list.{branch}.weight"] = normal((num_classes, 1024, 3, 3), 0.0005)
        tensors[f"classifier.conv2d_list.{branch}.bias"] = normal((num_classes,), 0.1)
    return tensors


def seeded_batch(seed: int, num_classes: int, batch_size: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Draws the inputs of one step, in a fixed order.

    Returns:
      ``source_image``, ``target_image`` ``[b, h, w, 3]`` float32, RGB, whole numbers in 0–255;
      ``source_label`` ``[b, h, w]`` int32, class index or ``IGNORE_LABEL``; ``student_noise``, ``teacher_noise``
      ``[b, h, w, 3]`` float32, standard normal, RGB.
    """
    rng = np.random.default_rng(seed)
    check_size("source", (batch_size, height, width, 3))
    cells = (batch_size, -(-height // 8), -(-width // 8))

    def enlarge(coarse: np.ndarray) -> np.ndarray:
        return coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]

    def image() -> np.ndarray:
        image = enlarge(rng.uniform(0, 255, (*cells, 3)))
        return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).round().astype(np.float32)

    source, target = image(), image()
    label = enlarge(rng.integers(0, num_classes, cells)).astype(np.int32)
    label[rng.random(label.shape) < 0.1] = IGNORE_LABEL
    noise = [rng.standard_normal(source.shape).astype(np.float32) for _ in range(2)]
    # The cases are drawn in BGR order; this project's images are RGB.
    rgb = [np.ascontiguousarray(x[..., ::-1]) for x in (source, target, *noise)]
    names = ("source_image", "target_image", "student_noise", "teacher_noise")
    return dict(zip(names, rgb, strict=True)) | {"source_label": label}
