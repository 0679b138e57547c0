"""Makes sean_jax/weights/minicity.safetensors, the network that `--init_weights=minicity` starts from.

    python experiments/start_file.py

Trains source_only (the network of --preset=quick) on 3,000 scenes of minicity_game with changed colours and noise, and
writes the EMA network's weights in float16. No image of the target is read. Prints scores on minicity_game's test
split.

Cost: COST on two cores of an AMD EPYC.
"""

import pathlib
from typing import Any

import numpy as np
import study

from sean_jax import minicity, weights
from sean_jax.run.trained import read_run

FILE = pathlib.Path(weights.__file__).with_name("minicity.safetensors")
SCENES = 3000
SETTINGS: dict[str, Any] = {
    "preset": "quick",
    "method": "source_only",
    "batch_size": 4,
    "steps": 5000,
    "learning_rate": 5e-4,
    "random_flip": True,
    "noise_std": 12.0,
    "photometric_source": True,
    "color_jitter": 0.4,
    "grey_probability": 0.2,
    "eval_split": "none",
    "save_every": 1000,
    "log_every": 100,
}
SCORED = {"minicity_game": {"dataset": "minicity_game", "split": "test"}}


def main() -> None:
    args = study.arguments(__doc__ or "", ["full"], steps={"type": int, "default": SETTINGS["steps"]}).parse_args()
    minicity.DEFAULT_COUNTS["minicity_game"]["train"] = SCENES
    settings = SETTINGS | {"data_dir": args.data_dir, "loader": args.loader, "steps": args.steps}
    runs = study.Study(pathlib.Path(args.runs), settings, SCORED)
    workdir = runs.train("minicity_start", 0, {"method": "source_only"})
    print({name: found["mean_iou"] for name, found in runs.score(workdir, "minicity_game").items()})
    tensors, report = weights.sean_tensors(read_run(str(workdir)))
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    weights.write(args.out or str(FILE), halves, {"format": "sean_jax", "version": 1, **report.metadata})


if __name__ == "__main__":
    study.run(main)
