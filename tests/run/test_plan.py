"""Tests of a run's plan: differences of initial weights, and fingerprints of data sets."""

import dataclasses
import os
import pathlib

import streets

from sean_jax import weights
from sean_jax.config import from_flat_settings
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.data.preparation.builder import prepare
from sean_jax.experiment import Experiment
from sean_jax.run.plan import fingerprint, weights_differences

SETTINGS = {"initialization": "scratch", "input_convention": "bgr_mean"}
RUN = Experiment(from_flat_settings(SETTINGS), LABEL_SPACES["16"])
ARCHITECTURE = RUN.weights_metadata()["architecture"]


def _file(**metadata) -> weights.WeightsFile:
    known = {"architecture": ARCHITECTURE, "input_convention": "bgr_mean"} | metadata
    tensors = weights.read(str(pathlib.Path(__file__).parents[1] / "weights/fixtures/sean.npz")).tensors
    return weights.WeightsFile(tensors, known, "some.npz")


def test_weights_differences_lists_settings_and_classes():
    assert weights_differences(_file(classes=LABEL_SPACES["16"].to_dict()), RUN) == []
    theirs = ARCHITECTURE | {"classifier_branches": 2}
    found = weights_differences(_file(architecture=theirs, classes=LABEL_SPACES["19"].to_dict()), RUN)
    assert found[0] == "classifier_branches: 2, here: 4"
    assert found[1].startswith("classes: road, sidewalk, building")
    assert "terrain" in found[1].split("here:")[0]
    assert "terrain" not in found[1].split("here:")[1]
    assert weights_differences(_file(input_convention="rgb_normalized"), RUN) == [
        "input_convention: rgb_normalized, here: bgr_mean"
    ]


def test_fingerprint_depends_on_description_and_images_not_on_times(tmp_path):
    dataset = DATASETS["gta5"]

    def found(described=dataset) -> str:
        place = {"source_dir": tmp_path / "gta5", "data_dir": tmp_path / "data", "labels": "none", "progress": False}
        return fingerprint(described, prepare(described, split="train", height=16, width=16, **place))

    streets.gta5(tmp_path / "gta5", count=2)
    first = found()
    os.utime(tmp_path / "gta5/images/00000.png", (1, 1))
    assert found() == first
    swapped = dataset.label_ids | {7: "sidewalk", 8: "road"}
    assert found(dataclasses.replace(dataset, label_ids=swapped)) != first
    (tmp_path / "gta5/images/00001.png").rename(tmp_path / "gta5/images/00002.png")
    assert found() != first
