"""Tests of rare-class sampling: probabilities, and what is drawn with them."""

import io

import numpy as np
from PIL import Image

from sean_jax.data.pipeline import SOURCE_DOMAIN, TARGET_DOMAIN, drawn_example, training_batches
from sean_jax.data.statistics import importance_probabilities, rare_class_probabilities

# Class 0 covers most of all images, class 1 half a percent of two images, class 2 too little of any, class 3 nothing.
SHARES = np.array([[0.99, 0.005, 0.001, 0], [0.99, 0.005, 0.002, 0], [0.999, 0, 0.001, 0], [0.5, 0.002, 0, 0]])


def test_images_with_rare_classes_are_preferred():
    f = SHARES.mean(0)
    weights = np.exp((1 - f[:2]) / 0.5)
    classes = weights / weights.sum()  # classes 2 and 3 cover enough of no image
    expected = [classes[0] / 4 + classes[1] / 2] * 2 + [classes[0] / 4] * 2
    np.testing.assert_allclose(rare_class_probabilities(SHARES, 0.5), expected, rtol=1e-12)
    cold = rare_class_probabilities(SHARES, 0.01)
    np.testing.assert_allclose(cold, [0.5, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rare_class_probabilities(np.zeros((4, 3)), 0.01), 0.25)


def test_importance_is_proportional_to_the_share_of_a_class_drawn_uniformly():
    shares = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.5, 0.5, 0], [1, 0, 0]])  # class 2 is nowhere
    expected = 0.1 + 0.6 * (np.array([0.5, 1, 0.5, 1]) / 3 + np.array([1, 0, 1, 0]) / 2) / 2
    np.testing.assert_allclose(importance_probabilities(shares, uniform=0.4), expected, rtol=1e-12)
    assert importance_probabilities(shares).sum() == 1


def test_examples_are_drawn_with_their_probabilities_whatever_came_before():
    cumulative = np.cumsum([0.1, 0.0, 0.6, 0.3])
    drawn = [drawn_example(position, 3, SOURCE_DOMAIN, cumulative) for position in range(4000)]
    counts = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.1, 0, 0.6, 0.3], atol=0.03)  # four standard deviations
    assert drawn_example(17, 3, SOURCE_DOMAIN, cumulative) == drawn[17]
    other = [drawn_example(position, 4, SOURCE_DOMAIN, cumulative) for position in range(100)]
    assert other != drawn[:100]


class _Grey:
    """Stands for a prepared set whose image number i has the grey value i."""

    height, width = 16, 16

    def __init__(self, count: int, labels: str):
        self.count, self.labels = count, labels

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> dict[str, bytes]:
        png = io.BytesIO()
        Image.new("RGB", (16, 16), (index,) * 3).save(png, "PNG")
        label = io.BytesIO()
        Image.new("L", (16, 16), index).save(label, "PNG")
        return {"image": png.getvalue(), "label": label.getvalue()}


def test_batches_hold_the_drawn_source_and_the_usual_target():
    sets = _Grey(4, "resized"), np.arange(256, dtype=np.uint8), _Grey(5, "none")
    common = {"batch_size": 2, "seed": 3, "start_step": 2, "stop_step": 6, "loader": "grain"}
    probabilities = [0.1, 0.0, 0.6, 0.3]
    drawn = list(training_batches(*sets, **common, source_probabilities=np.array(probabilities)))
    expected = [drawn_example(position, 3, SOURCE_DOMAIN, np.cumsum(probabilities)) for position in range(4, 12)]
    assert [value for batch in drawn for value in batch["source_image"][:, 0, 0, 0].tolist()] == expected
    assert [value for batch in drawn for value in batch["source_label"][:, 0, 0].tolist()] == expected
    for batch, other in zip(drawn, training_batches(*sets, **common), strict=True):
        np.testing.assert_array_equal(batch["target_image"], other["target_image"])


def test_batches_hold_the_drawn_target_and_the_usual_source():
    sets = _Grey(4, "resized"), np.arange(256, dtype=np.uint8), _Grey(3, "none")
    common = {"batch_size": 2, "seed": 3, "start_step": 2, "stop_step": 6, "loader": "grain"}
    probabilities = np.array([0.2, 0.0, 0.8])
    drawn = list(training_batches(*sets, **common, target_probabilities=probabilities))
    expected = [drawn_example(position, 3, TARGET_DOMAIN, np.cumsum(probabilities)) for position in range(4, 12)]
    assert [value for batch in drawn for value in batch["target_image"][:, 0, 0, 0].tolist()] == expected
    for batch, other in zip(drawn, training_batches(*sets, **common), strict=True):
        np.testing.assert_array_equal(batch["source_image"], other["source_image"])
