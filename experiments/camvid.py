"""Data, settings and scales of the experiments on CamVid.

CAMVID holds day_train, day_val and dusk_train, each with images/ and labels/: 517 labelled daylight frames, 60 more of
the same sequences, and 62 dusk frames of another sequence. experiments/README.md says how to make these folders from
CamVid as published; experiments/datasets/camvid_*.toml describe them.

The network is trained from scratch unless --init_weights is given, so learning rate and schedule are not the paper's.
They were chosen by the daylight validation score of `source_only` alone (camvid_day_to_dusk.py --part=learning_rate).
"""

import argparse
import pathlib
from typing import Any

from study import Study, arguments, parse_settings

DATASETS = pathlib.Path(__file__).parent / "datasets"
DAY, DUSK = str(DATASETS / "camvid_day.toml"), str(DATASETS / "camvid_dusk.toml")

# What differs from the paper in every training run.
SETTINGS: dict[str, Any] = {
    "classes": DAY,
    "batch_size": 2,
    "learning_rate_schedule": "cosine",
    "random_flip": True,
    "ema_ramp": True,
    "selection": "last",
}
SCALES: dict[str, dict[str, Any]] = {
    # Width multiplier 1/8 and small images: feasible on two CPU cores.
    "cpu": {
        "width_multiplier": 0.125, "height": 120, "width": 160, "steps": 1000, "learning_rate": 1e-3,
        "precision": "float32", "log_every": 20, "eval_every": 500, "save_every": 250, "eval_batch_size": 4,
    },
    # The full network, for one H100; learning rate and steps are those of a prototype.
    "gpu": {
        "height": 352, "width": 480, "steps": 4000, "learning_rate": 1e-4, "precision": "bfloat16",
        "log_every": 50, "eval_every": 1000, "save_every": 1000, "eval_batch_size": 4,
    },
    # Shows in seconds that everything runs.
    "smoke": {
        "width_multiplier": 1 / 32, "fc_channels": 256, "height": 24, "width": 48, "steps": 4, "learning_rate": 1e-3,
        "log_every": 2, "eval_every": 4, "save_every": 4,
    },
}  # fmt: skip


def parser(description: str, **flags: Any) -> argparse.ArgumentParser:
    """A parser with the flags of the experiments on CamVid."""
    return arguments(
        description,
        SCALES,
        camvid_dir={"required": True, "help": "folder with day_train, day_val and dusk_train"},
        init_weights={"help": "VGG-16 weights to start from; default: from scratch"},
        **flags,
    )


def study(args: argparse.Namespace, scored: dict[str, tuple[str, str]], **settings: Any) -> Study:
    """The training runs at the requested scale; ``scored``: name → (data set, split)."""
    places = {"source_dir": args.camvid_dir, "target_dir": args.camvid_dir}
    given = {"data_dir": args.data_dir, "loader": args.loader, "init_weights": args.init_weights}
    common = SETTINGS | SCALES[args.scale] | places | given | settings
    if args.precision:
        common["precision"] = args.precision
    common |= parse_settings(args.settings)
    where = {
        name: {"dataset": dataset, "split": split, "dataset_dir": args.camvid_dir}
        for name, (dataset, split) in scored.items()
    }
    return Study(pathlib.Path(args.runs) / "camvid" / args.scale, common, where)


def shown(trainings: Study) -> dict[str, Any]:
    """The settings of a study without folders, which differ between machines."""
    places = ("source_dir", "target_dir", "data_dir", "loader")
    settings = {name: value for name, value in trainings.settings.items() if name not in places}
    files = ("source", "target", "classes", "init_weights")
    return {name: pathlib.Path(v).name if v and name in files else v for name, v in settings.items()}
