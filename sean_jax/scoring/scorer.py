"""Scores of networks on a labelled split, each stamped with everything that gives the number its meaning."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sean_jax.data.dataset import Dataset, label_map
from sean_jax.data.pipeline import evaluation_examples
from sean_jax.data.prepared import PreparedSet
from sean_jax.experiment import Experiment
from sean_jax.methods import METHODS, Method
from sean_jax.models import Network
from sean_jax.ops.resize import resize_map
from sean_jax.scoring import visualize
from sean_jax.scoring.predictor import Example, at_size, make_evaluator
from sean_jax.scoring.protocols import score
from sean_jax.training.parallel import Devices

PICTURES = 4  # examples in a panel


class Scorer:
    """Evaluates networks on one prepared labelled split of a data set."""

    def __init__(self, experiment: Experiment, dataset: Dataset, split: str, prepared: PreparedSet, devices: Devices):
        self._experiment, self._dataset, self._split = experiment, dataset, split
        self.prepared = prepared
        self._map = label_map(dataset, experiment.label_space)
        self._network = experiment.network()
        self._confusion = make_evaluator(self._network, devices, experiment.config.eval_batch_size)
        self._method = (
            experiment.method() if experiment.config.method in METHODS else None
        )  # a weights file's may not be

    @property
    def palette(self) -> visualize.Palette:
        """Colours of the classes it draws and scores."""
        return self._experiment.label_space.palette

    def examples(self, indices: Sequence[int]) -> Iterator[Example]:
        """The examples at these places of the split, in the order of names."""
        loader = self._experiment.config.loader
        found = evaluation_examples(self.prepared, self._map, loader=loader, indices=indices)
        return itertools.starmap(Example, found)

    def evaluate(self, networks: dict[str, Any], step: int | None, protocol: str = "all") -> dict[str, dict[str, Any]]:
        """Scores of each network in percent, with confusion matrix and stamp, by the network's name."""
        classes = self._experiment.label_space.classes
        score(np.zeros((len(classes),) * 2), classes, protocol)  # refused here if it cannot be computed
        host_share = range(jax.process_index(), len(self.prepared), jax.process_count())
        confusion = self._confusion(networks, self.examples(host_share))
        return {name: self._stamped(name, confusion[name], step, protocol) for name in networks}

    def _stamped(self, network: str, confusion: np.ndarray, step: int | None, protocol: str) -> dict[str, Any]:
        config, classes = self._experiment.config, self._experiment.label_space.classes
        selection = "oracle selection" if config.selection == "oracle" else "last checkpoint"
        if step is None:
            selection = "not said by the weights file"
        stamp: dict[str, Any] = {
            "network": network,
            "dataset": self._dataset.name,
            "split": self._split,
            "images": len(self.prepared),
            "input_size": f"{config.width}x{config.height}",
            "resolution": "the ground truth's own size",
            "interpolation": "logits, bilinear, corners not aligned",
            "checkpoint": "weights file" if step is None else f"step {step}",
            "step": step,
            "seed": None if step is None else config.seed,
            "method": config.method,
            "selection": selection,
            "classes": list(classes),
            "confusion_matrix": confusion.tolist(),
        }
        if self._method is not None and self._method.SUBSTITUTED:
            stamp["substituted"] = dict(self._method.SUBSTITUTED)
        return score(confusion, classes, protocol) | stamp

    def segment(self, params: Any, image: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Classes ``[H, W]`` uint8 and the network's maps ``[H, W]`` in [0, 1] of an image ``[H, W, 3]``."""
        classes, maps, _ = jax.device_get(_predict(self._network, self._method, params, image))
        return classes, maps

    def sample(self, count: int) -> list[Example]:
        """``count`` examples evenly spaced over the split, since neighbours in a video look alike."""
        return list(self.examples(visualize.evenly_spaced(len(self.prepared), count)))

    def predictions(self, params: Any) -> list[np.ndarray]:
        """The predicted classes ``[H, W]`` uint8 of each example in a panel."""
        return [self.segment(params, example.image)[0] for example in self.sample(PICTURES)]

    def panel(self, params: Any, before: Sequence[np.ndarray] = ()) -> np.ndarray:
        """RGB picture, an example a row: input, ground truth, prediction, the network's maps, the method's masks.

        With ``before``, an earlier network's :meth:`predictions` precede those of ``params``.
        """
        rows = []
        for index, example in enumerate(self.sample(PICTURES)):
            earlier = before[index : index + 1]
            classes, maps, masks = jax.device_get(_predict(self._network, self._method, params, example.image))
            rows.append(
                [
                    example.image,
                    *(visualize.colorize(x, self.palette) for x in (truth_of(example), *earlier, classes)),
                    *(visualize.heat_map(x) for x in maps.values()),
                    *(visualize.darken(example.image, ~mask) for mask in masks.values()),
                ]
            )
        return visualize.panel(rows)


@functools.partial(jax.jit, static_argnums=0)
def _predict(
    network: Network, method: Method | None, params: Any, image: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """Classes, maps and the method's masks of an image ``[H, W, 3]``, at its size."""
    size = (image.shape[0], image.shape[1])
    prediction = network.predict(params, image[None])
    classes, maps = at_size(prediction, size)
    masks = {} if method is None else method.masks(prediction)
    masks = {name: resize_map(mask.astype(jnp.float32), size) > 0.5 for name, mask in masks.items()}
    return jax.tree.map(lambda x: x[0], (classes, maps, masks))


def truth_of(example: Example) -> np.ndarray:
    """The example's label at its image's size, for pictures: ``[h, w]`` uint8 class index or 255."""
    height, width = example.image.shape[:2]
    return np.asarray(Image.fromarray(example.label).resize((width, height), Image.Resampling.NEAREST))


class Evaluation(NamedTuple):
    """What one evaluation during training found."""

    scores: dict[str, dict[str, Any]]  # by network; the first one counts
    panel: np.ndarray  # of the network that counts

    @property
    def mean_iou(self) -> float:
        return next(iter(self.scores.values()))["mean_iou"]


def describe(scores: dict[str, Any]) -> str:
    """One line that says what a score is of."""
    substituted = ", ".join(scores.get("substituted", {}))
    return (
        f"{scores['network']}, {scores['checkpoint']}, on {scores['dataset']}/{scores['split']} "
        f"({scores['images']} images), protocol {scores['protocol']} ({scores['protocol_meaning']}), "
        f"selection: {scores['selection']}" + (f", with substitutes for {substituted}" if substituted else "")
    )
