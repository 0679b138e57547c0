"""Scores a trained network on any labelled data set."""

import dataclasses
from typing import Any

import jax

from sean_jax.data.catalogue import load_dataset
from sean_jax.data.dataset import label_map
from sean_jax.data.folders import default_data_dir
from sean_jax.errors import UserError
from sean_jax.run.plan import prepare_scoring
from sean_jax.run.trained import TrainedNetwork
from sean_jax.scoring.scorer import Scorer


def score_network(
    network: TrainedNetwork,
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
      dataset_dir: the folder of the data set; None for the run's target folder, if the data set is its target.
      split: a labelled split; None for the data set's evaluation split.
      protocol: a key of :data:`sean_jax.scoring.protocols.PROTOCOLS`.
      **settings: fields of :class:`~sean_jax.config.Config` (data_dir, loader, height, width, eval_batch_size,
        precision); None for the value that the network was trained with.

    Raises:
      UserError: the split has no labels, or lacks classes of the label space or the protocol.
    """
    scorer = open_scorer(network, dataset=dataset, dataset_dir=dataset_dir, split=split, **settings)
    scores = scorer.evaluate({network.name: network.params}, network.step, protocol)[network.name]
    return scores | {"weights": network.origin}


def open_scorer(
    network: TrainedNetwork,
    *,
    dataset: str | None = None,
    dataset_dir: str | None = None,
    split: str | None = None,
    **settings: Any,
) -> Scorer:
    """Prepares a split and returns its scorer; see :func:`score_network` for the arguments."""
    config = network.experiment.config
    same_target = dataset is None or dataset == config.target
    name = dataset or config.target
    if name is None:
        raise UserError("--dataset is missing; give a built-in data set or a TOML file")
    scored = load_dataset(name)
    split = split or (config.eval_split if same_target else None) or scored.evaluation_split
    if split is None or scored.split(split).labels is None:
        raise UserError(f"{scored.name} has no labels in split {split}; choose another --split")
    label_map(scored, network.experiment.label_space)  # raises an error if the data set lacks classes
    changes = {key: value for key, value in settings.items() if value is not None}
    changes |= {"target": name, "eval_split": split}
    changes["target_dir"] = dataset_dir or (config.target_dir if same_target else None)
    changes["data_dir"] = settings.get("data_dir") or config.data_dir or default_data_dir()
    experiment = network.experiment._replace(config=dataclasses.replace(config, **changes))
    prepared = prepare_scoring(experiment.config, scored, progress=True, flag="--dataset_dir")
    assert prepared is not None
    return Scorer(experiment, scored, split, prepared, jax.local_devices())
