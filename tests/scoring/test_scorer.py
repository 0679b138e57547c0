"""Scoring during training: its devices, its examples."""

import jax
import numpy as np
import pytest

from sean_jax.data.catalogue import load_dataset
from sean_jax.run import loop
from sean_jax.run import plan as setup
from sean_jax.scoring.scorer import PICTURES, Scorer


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


def test_pictures_show_examples_from_all_over_the_split(roads):
    plan = setup.plan(dict(roads))
    prepared = setup.prepare_scoring(plan.experiment.config, plan.target, progress=False)
    assert prepared is not None
    scorer = Scorer(plan.experiment, load_dataset("cityscapes"), "val", prepared, jax.local_devices())
    everything = list(scorer.examples(range(5)))
    sample = scorer.sample(PICTURES)
    assert [example.name for example in sample] == [everything[index].name for index in (0, 1, 2, 4)]
    np.testing.assert_array_equal(sample[3].image, everything[4].image)
    assert [example.name for example in scorer.sample(9)] == [example.name for example in everything]
