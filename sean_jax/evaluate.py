"""Scores a trained network on a labelled data set.

    python -m sean_jax.evaluate --workdir=runs/gta5 --out=scores.json

The data set is the run's target unless --dataset names another. --from=scores.json, a file that --out wrote, computes
the scores of --protocol from the stored confusion matrix, without the network and the images; repeat --from to print
a table.
"""

import pathlib
from typing import Any

from absl import flags

from sean_jax.cli import command as cli
from sean_jax.cli import compilation_cache
from sean_jax.errors import UserError
from sean_jax.models.inputs import CONVENTIONS
from sean_jax.run.directory import write_json
from sean_jax.run.score import score_network
from sean_jax.run.trained import CONVENTION_HELP, open_network
from sean_jax.scoring.metrics import format_table
from sean_jax.scoring.protocols import PROTOCOLS
from sean_jax.scoring.scorer import describe
from sean_jax.scoring.stored import rescore, score_table

_NETWORK, _DATA, _SCORES, _STORED = "Network", "Data", "Scores", "Stored scores"
WORKDIR = flags.DEFINE_string("workdir", None, "run directory", module_name=_NETWORK)
WEIGHTS = flags.DEFINE_string("weights", None, "weights file, instead of --workdir", module_name=_NETWORK)
NETWORK = flags.DEFINE_string(
    "network", None, "which of the run's networks; default: the main one", module_name=_NETWORK
)
INPUT_CONVENTION = flags.DEFINE_enum(
    "input_convention", None, CONVENTIONS, f"of --weights: {CONVENTION_HELP}", module_name=_NETWORK
)
HEIGHT = flags.DEFINE_integer(
    "height", None, "input height in pixels; default: the height trained at", lower_bound=16, module_name=_NETWORK
)
WIDTH = flags.DEFINE_integer(
    "width", None, "input width in pixels; default: the width trained at", lower_bound=16, module_name=_NETWORK
)
PRECISION = flags.DEFINE_enum(
    "precision", None, ["float32", "tf32", "bfloat16"], "arithmetic; default: the run's", module_name=_NETWORK
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "images per device", lower_bound=1, module_name=_NETWORK)
DATASET = flags.DEFINE_string(
    "dataset", None, "built-in data set or TOML file; default: the run's target", module_name=_DATA
)
DATASET_DIR = flags.DEFINE_string(
    "dataset_dir", None, "its folder, as downloaded; default: the run's, if it is the run's target", module_name=_DATA
)
SPLIT = flags.DEFINE_string("split", None, "labelled split; default: the data set's own", module_name=_DATA)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "where prepared data are kept; default: the run's or $SEAN_JAX_DATA_DIR", module_name=_DATA
)
LOADER = flags.DEFINE_enum("loader", None, ["tf_data", "grain"], "input engine", module_name=_DATA)
PROTOCOL = flags.DEFINE_enum("protocol", "all", list(PROTOCOLS), "which classes the mean is over", module_name=_SCORES)
OUT = flags.DEFINE_string("out", None, "JSON file to write the scores to", module_name=_SCORES)
FROM = flags.DEFINE_multi_string(
    "from",
    None,
    "use the confusion matrix in this scores.json, not a network; repeat to print a table",
    module_name=_STORED,
)
MIXED = flags.DEFINE_bool(
    "mixed",
    False,
    "with several --from: allow scores that are not comparable in one table, each labelled",
    module_name=_STORED,
)


def main() -> None:
    out = pathlib.Path(OUT.value) if OUT.value else None
    if out and not out.parent.is_dir():
        raise UserError(f"--out={out}: the folder {out.parent} does not exist; create it first")
    if FROM.value:
        others = (WORKDIR, WEIGHTS, NETWORK, INPUT_CONVENTION, DATASET, DATASET_DIR, SPLIT, DATA_DIR, LOADER)
        if given := [f"--{f.name}" for f in (*others, HEIGHT, WIDTH, BATCH_SIZE, PRECISION) if f.value is not None]:
            raise UserError(
                "--from uses a stored confusion matrix and can be combined with --protocol, --out and --mixed only; "
                f"leave out {', '.join(given)}"
            )
        if len(FROM.value) == 1:
            _report(rescore(FROM.value[0], PROTOCOL.value), out)
        elif out:
            raise UserError(f"--out={out} needs a single --from; redirect standard output to keep the table")
        else:
            print(score_table({path: rescore(path, PROTOCOL.value) for path in FROM.value}, mixed=MIXED.value))
    else:
        _report(_evaluate(), out)


def _report(scores: dict[str, Any], out: pathlib.Path | None) -> None:
    print(describe(scores))
    print(format_table(scores))
    if scores["absent"]:
        print(f"  not in the mean, because neither labelled nor predicted: {', '.join(scores['absent'])}")
    if out:
        write_json(out, scores)


def _evaluate() -> dict[str, Any]:
    compilation_cache.enable()
    return score_network(
        open_network(WORKDIR.value, WEIGHTS.value, NETWORK.value, INPUT_CONVENTION.value),
        dataset=DATASET.value,
        dataset_dir=DATASET_DIR.value,
        split=SPLIT.value,
        protocol=PROTOCOL.value,
        data_dir=DATA_DIR.value,
        loader=LOADER.value,
        height=HEIGHT.value,
        width=WIDTH.value,
        eval_batch_size=BATCH_SIZE.value,
        precision=PRECISION.value,
    )


if __name__ == "__main__":
    cli.run(main, "sean_jax.evaluate", computes=True)
