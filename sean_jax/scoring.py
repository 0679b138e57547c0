"""Scores of networks on a labelled split, each stamped with all that a number needs to mean something."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from sean_jax import visualize
from sean_jax.data.datasets import Dataset, label_map
from sean_jax.data.pipeline import evaluation_examples
from sean_jax.data.prepared import PreparedSet
from sean_jax.evaluation import Example, make_evaluator, predict
from sean_jax.parallel import Devices
from sean_jax.protocols import score
from sean_jax.rundir import Run

PICTURES = 4  # examples in a panel


class Scorer:
    """Evaluates networks on one prepared labelled split of a data set."""

    def __init__(self, run: Run, dataset: Dataset, split: str, prepared: PreparedSet, devices: Devices):
        self._run, self._dataset, self._split, self._prepared = run, dataset, split, prepared
        self._map = label_map(dataset, run.label_space)
        self._network = run.network()
        self._confusion = make_evaluator(self._network, devices, run.config.eval_batch_size)
        self._predict = jax.jit(lambda params, image: predict(self._network, params, image, image.shape[1:3]))

    def examples(self, indices: Sequence[int]) -> Iterator[Example]:
        """The examples at these places of the split, in the order of names."""
        loader = self._run.config.loader
        found = evaluation_examples(self._prepared, self._map, loader=loader, indices=indices)
        return itertools.starmap(Example, found)

    def evaluate(self, networks: dict[str, Any], step: int | None, protocol: str = "all") -> dict[str, dict[str, Any]]:
        """Scores of each network in percent, with confusion matrix and stamp, by the network's name."""
        classes = self._run.label_space.classes
        score(np.zeros((len(classes),) * 2), classes, protocol)  # refused here if it cannot be computed
        return {name: self._evaluate(name, params, step, protocol) for name, params in networks.items()}

    def _evaluate(self, network: str, params: Any, step: int | None, protocol: str) -> dict[str, Any]:
        host_share = range(jax.process_index(), len(self._prepared), jax.process_count())
        confusion = self._confusion(params, self.examples(host_share))
        config, classes = self._run.config, self._run.label_space.classes
        selection = "oracle selection" if config.selection == "oracle" else "last checkpoint"
        if step is None:
            selection = "not said by the weights file"
        return score(confusion, classes, protocol) | {
            "network": network,
            "dataset": self._dataset.name,
            "split": self._split,
            "images": len(self._prepared),
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

    def panel(self, params: Any) -> np.ndarray:
        """RGB picture, an example a row: input, ground truth, prediction, attention map, kept pixels."""
        palette, threshold = self._run.label_space.palette, self._run.config.attention_threshold
        rows = []
        # Spread over the split: neighbours in a video look alike.
        spread = np.linspace(0, len(self._prepared) - 1, min(PICTURES, len(self._prepared)), dtype=int).tolist()
        for example in self.examples(spread):
            height, width = example.image.shape[:2]
            classes, attention = jax.tree.map(lambda x: np.asarray(x[0]), self._predict(params, example.image[None]))
            truth = Image.fromarray(example.label).resize((width, height), Image.Resampling.NEAREST)
            rows.append(
                [
                    example.image,
                    visualize.colorize(np.asarray(truth), palette),
                    visualize.colorize(classes, palette),
                    visualize.heat_map(attention),
                    visualize.kept_pixels(example.image, attention, threshold),
                ]
            )
        return visualize.panel(rows)


class Evaluation(NamedTuple):
    """What one evaluation during training found."""

    scores: dict[str, dict[str, Any]]  # by network; the teacher's is the one that counts
    panel: np.ndarray  # of the teacher

    @property
    def mean_iou(self) -> float:
        return self.scores["teacher"]["mean_iou"]


def describe(scores: dict[str, Any]) -> str:
    """One line that says what a score is of."""
    return (
        f"{scores['network']}, {scores['checkpoint']}, on {scores['dataset']}/{scores['split']} "
        f"({scores['images']} images), protocol {scores['protocol']} ({scores['protocol_meaning']}), "
        f"selection: {scores['selection']}"
    )
