"""``python -m sean_jax.evaluate``: scores a run or a weights file on a labelled data set."""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from sean_jax import cli
from sean_jax.errors import UserError
from sean_jax.protocols import PROTOCOLS

WORKDIR = flags.DEFINE_string("workdir", None, "run directory")
WEIGHTS = flags.DEFINE_string("weights", None, "weights file with its metadata, instead of --workdir")
NETWORK = flags.DEFINE_enum("network", "teacher", ["teacher", "student"], "which network of the run")
DATASET = flags.DEFINE_string("dataset", None, "built-in data set or TOML file; default: the run's target")
DATASET_DIR = flags.DEFINE_string("dataset_dir", None, "its folder; default: the run's, if it is the run's target")
SPLIT = flags.DEFINE_string("split", None, "labelled split; default: the data set's own")
PROTOCOL = flags.DEFINE_enum("protocol", "all", list(PROTOCOLS), "which classes the mean is over")
OUT = flags.DEFINE_string("out", None, "file for the scores as JSON")
DATA_DIR = flags.DEFINE_string("data_dir", None, "where prepared data are kept; default: $SEAN_JAX_DATA_DIR")
LOADER = flags.DEFINE_enum("loader", None, ["tf_data", "grain"], "input engine")
HEIGHT = flags.DEFINE_integer("height", None, "input size in pixels; default: the size trained at")
WIDTH = flags.DEFINE_integer("width", None, "input size in pixels; default: the size trained at")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "images per device")
PRECISION = flags.DEFINE_enum("precision", None, ["float32", "tf32", "bfloat16"], "arithmetic; default: the run's")


def main() -> None:
    import jax

    from sean_jax.data.datasets import load_dataset
    from sean_jax.data.sources import default_data_dir
    from sean_jax.metrics import format_table
    from sean_jax.networks import open_network
    from sean_jax.rundir import write_json
    from sean_jax.scoring import Scorer, describe
    from sean_jax.setup import prepare_scoring

    network = open_network(WORKDIR.value, WEIGHTS.value, NETWORK.value)
    config = network.run.config
    same_target = DATASET.value is None or DATASET.value == config.target
    changes: dict[str, Any] = {
        "target": DATASET.value or config.target,
        "target_dir": DATASET_DIR.value or (config.target_dir if same_target else None),
        "data_dir": DATA_DIR.value or config.data_dir or default_data_dir(),
        "loader": LOADER.value or config.loader,
        "height": HEIGHT.value or config.height,
        "width": WIDTH.value or config.width,
        "eval_batch_size": BATCH_SIZE.value or config.eval_batch_size,
        "precision": PRECISION.value or config.precision,
    }
    if changes["target"] is None:
        raise UserError("--dataset is needed: a built-in data set or a TOML file")
    dataset = load_dataset(changes["target"])
    split = SPLIT.value or (config.eval_split if same_target else None) or dataset.evaluation_split
    if split is None or dataset.split(split).labels is None:
        raise UserError(f"{dataset.name} has no labels to score on in split {split}; name another --split")
    run = network.run._replace(config=dataclasses.replace(config, **changes, eval_split=split))
    prepared = prepare_scoring(run.config, dataset, progress=True, flag="--dataset_dir")
    assert prepared is not None
    out = pathlib.Path(OUT.value) if OUT.value else None
    if out and not out.parent.is_dir():
        raise UserError(f"--out={out}: the folder {out.parent} does not exist; create it first")

    scorer = Scorer(run, dataset, split, prepared, jax.local_devices())
    scores = scorer.evaluate({NETWORK.value: network.params}, network.step, PROTOCOL.value)[NETWORK.value]
    scores["weights"] = network.origin
    print(describe(scores))
    print(format_table(scores))
    if out:
        write_json(out, scores)


if __name__ == "__main__":
    cli.run(main, "sean_jax.evaluate")
