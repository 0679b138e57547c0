"""Scores of networks on a labelled split, each stamped with all that a number needs to mean something."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from sean_jax.data.catalogue import Dataset, label_map, load_dataset
from sean_jax.data.folders import default_data_dir
from sean_jax.data.pipeline import evaluation_examples
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.run.directory import Run
from sean_jax.run.plan import prepare_scoring
from sean_jax.run.trained import Network
from sean_jax.scoring import visualize
from sean_jax.scoring.predictor import Example, make_evaluator, predict
from sean_jax.scoring.protocols import score
from sean_jax.training.parallel import Devices

PICTURES = 4  # examples in a panel


class Scorer:
    """Evaluates networks on one prepared labelled split of a data set."""

    def __init__(self, run: Run, dataset: Dataset, split: str, prepared: PreparedSet, devices: Devices):
        self._run, self._dataset, self._split, self._prepared = run, dataset, split, prepared
        self._map = label_map(dataset, run.label_space)
        self._network = run.network()
        self._confusion = make_evaluator(self._network, devices, run.config.eval_batch_size)
        self._predict = jax.jit(lambda params, image: predict(self._network, params, image, image.shape[1:3]))

    @property
    def palette(self) -> visualize.Palette:
        """Colours of the classes it draws and scores."""
        return self._run.label_space.palette

    def examples(self, indices: Sequence[int]) -> Iterator[Example]:
        """The examples at these places of the split, in the order of names."""
        loader = self._run.config.loader
        found = evaluation_examples(self._prepared, self._map, loader=loader, indices=indices)
        return itertools.starmap(Example, found)

    def evaluate(self, networks: dict[str, Any], step: int | None, protocol: str = "all") -> dict[str, dict[str, Any]]:
        """Scores of each network in percent, with confusion matrix and stamp, by the network's name."""
        classes = self._run.label_space.classes
        score(np.zeros((len(classes),) * 2), classes, protocol)  # refused here if it cannot be computed
        host_share = range(jax.process_index(), len(self._prepared), jax.process_count())
        confusion = self._confusion(networks, self.examples(host_share))
        return {name: self._stamped(name, confusion[name], step, protocol) for name in networks}

    def _stamped(self, network: str, confusion: np.ndarray, step: int | None, protocol: str) -> dict[str, Any]:
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

    def segment(self, params: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classes ``[H, W]`` uint8 and attention ``[H, W]`` of an image ``[H, W, 3]`` at its own size."""
        classes, attention = self._predict(params, image[None])
        return np.asarray(classes[0]), np.asarray(attention[0])

    def sample(self, count: int) -> list[Example]:
        """``count`` examples evenly spaced over the split, since neighbours in a video look alike."""
        return list(self.examples(visualize.evenly_spaced(len(self._prepared), count)))

    def panel(self, params: Any) -> np.ndarray:
        """RGB picture, an example a row: input, ground truth, prediction, attention map, kept pixels."""
        threshold = self._run.config.attention_threshold
        rows = []
        for example in self.sample(PICTURES):
            classes, attention = self.segment(params, example.image)
            rows.append(
                [
                    example.image,
                    visualize.colorize(truth_of(example), self.palette),
                    visualize.colorize(classes, self.palette),
                    visualize.heat_map(attention),
                    visualize.kept_pixels(example.image, attention, threshold),
                ]
            )
        return visualize.panel(rows)


def truth_of(example: Example) -> np.ndarray:
    """The example's label at its image's size, for pictures: ``[h, w]`` uint8 class index or 255."""
    height, width = example.image.shape[:2]
    return np.asarray(Image.fromarray(example.label).resize((width, height), Image.Resampling.NEAREST))


class Evaluation(NamedTuple):
    """What one evaluation during training found."""

    scores: dict[str, dict[str, Any]]  # by network; the teacher's is the one that counts
    panel: np.ndarray  # of the teacher

    @property
    def mean_iou(self) -> float:
        return self.scores["teacher"]["mean_iou"]


def score_network(
    network: Network,
    *,
    dataset: str | None = None,
    dataset_dir: str | None = None,
    split: str | None = None,
    protocol: str = "all",
    **settings: Any,
) -> dict[str, Any]:
    """Scores a network on a labelled split, prepared on first use.

    Args:
      network: from :func:`sean_jax.run.trained.open_network`.
      dataset: a built-in name or a TOML file; None for the target of the network's run.
      dataset_dir: its folder; None for the run's, if it is the run's target.
      split: None for the data set's own.
      protocol: a key of :data:`sean_jax.scoring.protocols.PROTOCOLS`.
      **settings: of :class:`~sean_jax.config.Config` (data_dir, loader, height, width, eval_batch_size, precision);
        None stands for what the network was trained with.

    Raises:
      UserError: no labels to score on, or a label space or protocol that they cannot supply.
    """
    scorer = open_scorer(network, dataset=dataset, dataset_dir=dataset_dir, split=split, **settings)
    scores = scorer.evaluate({network.name: network.params}, network.step, protocol)[network.name]
    return scores | {"weights": network.origin}


def open_scorer(
    network: Network,
    *,
    dataset: str | None = None,
    dataset_dir: str | None = None,
    split: str | None = None,
    **settings: Any,
) -> Scorer:
    """What :func:`score_network` scores with: of its arguments those that say on what."""
    config = network.run.config
    same_target = dataset is None or dataset == config.target
    name = dataset or config.target
    if name is None:
        raise UserError("--dataset is needed: a built-in data set or a TOML file")
    scored = load_dataset(name)
    split = split or (config.eval_split if same_target else None) or scored.evaluation_split
    if split is None or scored.split(split).labels is None:
        raise UserError(f"{scored.name} has no labels to score on in split {split}; name another --split")
    label_map(scored, network.run.label_space)  # refused here if the data set cannot supply the classes
    changes = {key: value for key, value in settings.items() if value is not None}
    changes |= {"target": name, "eval_split": split}
    changes["target_dir"] = dataset_dir or (config.target_dir if same_target else None)
    changes["data_dir"] = settings.get("data_dir") or config.data_dir or default_data_dir()
    run = network.run._replace(config=dataclasses.replace(config, **changes))
    prepared = prepare_scoring(run.config, scored, progress=True, flag="--dataset_dir")
    assert prepared is not None
    return Scorer(run, scored, split, prepared, jax.local_devices())


def describe(scores: dict[str, Any]) -> str:
    """One line that says what a score is of."""
    return (
        f"{scores['network']}, {scores['checkpoint']}, on {scores['dataset']}/{scores['split']} "
        f"({scores['images']} images), protocol {scores['protocol']} ({scores['protocol_meaning']}), "
        f"selection: {scores['selection']}"
    )
