"""Scoring during training: its devices, its examples, its pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.data.catalogue import load_dataset
from sean_jax.models import Prediction
from sean_jax.run import loop
from sean_jax.run import plan as setup
from sean_jax.scoring import visualize
from sean_jax.scoring.predictor import Example
from sean_jax.scoring.scorer import PICTURES, Scorer, truth_of


class ReachedError(Exception):
    """Ends the training where scoring is set up."""


def test_scoring_uses_all_devices_whatever_the_training_batch(roads, tmp_path, monkeypatch):
    def started(run, dataset, split, prepared, devices):
        raise ReachedError(devices)

    monkeypatch.setattr(loop, "Scorer", started)
    with pytest.raises(ReachedError) as used:
        loop.train(setup.plan(roads | {"batch_size": 1}), tmp_path / "run")
    assert used.value.args[0] == jax.local_devices()
    assert len(jax.local_devices()) == 4


@pytest.fixture
def scorer(roads):
    plan = setup.plan(dict(roads))
    prepared = setup.prepare_scoring(plan.experiment.config, plan.target, progress=False)
    assert prepared is not None
    return Scorer(plan.experiment, load_dataset("cityscapes"), "val", prepared, jax.local_devices())


def test_pictures_show_examples_from_all_over_the_split(scorer):
    everything = list(scorer.examples(range(5)))
    sample = scorer.sample(PICTURES)
    assert [example.name for example in sample] == [everything[index].name for index in (0, 1, 2, 4)]
    np.testing.assert_array_equal(sample[3].image, everything[4].image)
    assert [example.name for example in scorer.sample(9)] == [example.name for example in everything]


class Halves:
    """A network that predicts class 0 with attention 0 on the left, and class 1 with attention 1 on the right."""

    def predict(self, params, images):
        attention = jnp.broadcast_to(jnp.arange(8) >= 4, (len(images), 4, 8)).astype(jnp.float32)
        logits = jnp.stack([1 - attention, attention], -1)
        return Prediction(logits=logits, features=logits, maps={"attention": attention})


def test_a_row_shows_image_truth_prediction_attention_and_mask(scorer, monkeypatch):
    monkeypatch.setattr(scorer, "_network", Halves())
    panel, example = scorer.panel({}), scorer.sample(1)[0]
    (height, width), gap = example.image.shape[:2], visualize.GAP
    assert panel.shape == (PICTURES * (height + gap) - gap, 5 * (width + gap) - gap, 3)
    image, truth, prediction, attention, mask = (panel[:height, i * (width + gap) :][:, :width] for i in range(5))
    np.testing.assert_array_equal(image, example.image)
    np.testing.assert_array_equal(truth, visualize.colorize(truth_of(example), scorer.palette))
    assert np.all(prediction[:, : width // 2] == scorer.palette[0])
    assert np.all(prediction[:, width // 2 :] == scorer.palette[1])
    left, right = np.s_[:, : width // 4], np.s_[:, -width // 4 :]  # away from the interpolated border
    assert np.all(attention[left] == visualize.heat_map(np.zeros(1)))
    assert np.all(attention[right] == visualize.heat_map(np.ones(1)))
    np.testing.assert_array_equal(mask[left], example.image[left] // 4)  # masked out: darkened
    np.testing.assert_array_equal(mask[right], example.image[right])


def test_earlier_predictions_precede_those_of_the_network(scorer, monkeypatch):
    monkeypatch.setattr(scorer, "_network", Halves())
    before = [np.full_like(classes, 2) for classes in scorer.predictions({})]
    width = before[0].shape[1] + visualize.GAP
    without, panel = scorer.panel({}), scorer.panel({}, before)
    np.testing.assert_array_equal(np.delete(panel, np.s_[2 * width : 3 * width], axis=1), without)
    assert np.all(panel[: before[0].shape[0], 2 * width : 3 * width - visualize.GAP] == scorer.palette[2])


def test_the_truth_is_shown_at_the_size_of_the_image():
    label = np.array([[0, 1], [2, 255]], np.uint8).repeat(3, 0).repeat(3, 1)
    found = truth_of(Example("x", np.zeros((2, 4, 3), np.uint8), label))
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [2, 2, 255, 255]])
