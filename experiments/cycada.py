"""CyCADA stage by stage: CycleGAN, translation, training on the translated source, and feature adaptation.

    python experiments/cycada.py --source_dir=GTA5 --cityscapes_dir=CITYSCAPES --init_weights=VGG16

`--method=cycada` does all of this in one command. Here each stage is a run of its own, beside the ablations that CyCADA
published: adaptation of neither, of features, of pixels, and of both. The default preset is `published`: CyCADA's
FCN-8s, optimisers and schedules; `--preset=paper` takes the network and optimiser of SEAN's paper. Runs whatever
is missing, scores on the 500 validation images of Cityscapes, and writes cycada.md and cycada.json below --runs.
It can be interrupted and rerun.

Cost: the published schedule is 500,000 steps of CycleGAN and 400,000 of FCN-8s at up to 2048x1024 for each seed, which
takes weeks on one GPU; --preset=paper is shorter. Nobody has run this command on the real data yet.
Expected: the published means, which are in the table (from GTA-5, 19 classes).
--scale=smoke runs everything on the bundled synthetic data set in a minute or two; its numbers mean nothing.
"""

import argparse
import dataclasses
import pathlib
import sys
from typing import Any

import cityscapes
import study

from sean_jax.data.catalogue import load_dataset
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.methods.cycada import CyCADA
from sean_jax.run.stages import COMMANDS

PUBLISHED = {"source only": 17.9, "features": 29.2, "pixels": 34.8, "pixels and features": 35.4, "oracle": 60.3}
ROWS = {"source only": "features", "pixels": "pixels and features"}  # without adapting features, and with


def small_cyclegan(settings: study.Settings) -> dict[str, Any]:
    """Settings of a CycleGAN at smoke scale. It enlarges the images, which are too small for its discriminators."""
    data_dir = settings.get("data_dir") or default_data_dir()
    size = settings["height"], settings["width"]
    folders = {
        f"{domain}_dir": str(resolve_source_dir(load_dataset(settings[domain]), None, data_dir, *size))
        for domain in ("source", "target")
    }
    return {**folders, "height": 24, "width": 48, "translator_width": 4, "translator_blocks": 1}


def translated(trainings: study.Study, seed: int, settings: study.Settings) -> dict[str, Any]:
    """Trains a CycleGAN, translates the source with it, and returns the settings of runs on the translated source."""
    translator = trainings.train("cyclegan", seed, settings)
    folder = trainings.runs / f"translated-seed{seed}"
    print(f"\n=== {folder}", flush=True)
    described = COMMANDS["translate"]({**trainings.settings, "translator": str(translator)}, folder)
    if described is None:
        sys.exit(143)
    return {"source": described, "source_dir": None}


def rows(trainings: study.Study, seed: int, preset: str, smoke: bool) -> dict[str, dict[str, Any]]:
    """Trains and scores all ablations with one seed; at smoke scale, only those on the translated source."""
    own = {name: {**stage.settings, **stage.presets.get(preset, {})} for name, stage in CyCADA.STAGES.items()}
    pixels = translated(trainings, seed, own["cyclegan"] | (small_cyclegan(trainings.settings) if smoke else {}))
    found = {}
    for row, with_features in list(ROWS.items())[smoke:]:
        source = pixels if row == "pixels" else {}
        name = row.replace(" ", "_")
        found[row] = trainings.result(name, seed, own["source"] | source)
        adapted = {"method": "cycada", **source, "init_weights": str(trainings.workdir(name, seed))}
        found[with_features] = trainings.result(with_features.replace(" ", "_"), seed, adapted)
    return found


def parse() -> argparse.Namespace:
    return study.arguments(
        __doc__ or "",
        ("paper", "smoke"),
        source={"choices": ["gta5", "synthia"], "default": "gta5"},
        source_dir={"help": "the source's folder, as downloaded"},
        cityscapes_dir={"help": "Cityscapes' folder, as downloaded"},
        init_weights={"help": "VGG-16 weights (.pth, .safetensors, .npz), from which the runs on the source start"},
        preset={"choices": ["published", "paper"], "default": "published"},
    ).parse_args()


def main() -> None:
    args = parse()
    smoke = args.scale == "smoke"
    preset = "paper" if smoke else args.preset
    trainings = cityscapes.study(args, args.source)
    trainings = dataclasses.replace(
        trainings, runs=trainings.runs / f"cycada-{preset}", settings={**trainings.settings, "preset": preset}
    )
    results: study.Results = {}
    for seed in args.seeds:
        for row, result in rows(trainings, seed, preset, smoke).items():
            results.setdefault(row, {})[seed] = result
    lines = [study.seeds_table(results, list(trainings.scored))]
    if args.source == "gta5":
        lines += [f"| {row} (published) | FCN-8s | {mean} | – |" for row, mean in PUBLISHED.items()]
    lines.append(cityscapes.notes(results, ()))
    out = pathlib.Path(args.out or trainings.runs / "cycada")
    study.write(out, "\n".join(lines), study.small(results), scale=args.scale, preset=preset, published=PUBLISHED)


if __name__ == "__main__":
    study.run(main)
