"""Builds and checks a data set for training: ``python -m sean_jax.prepare --dataset=gta5 --source_dir=FOLDER``.

All files are looked at; those that cannot be used are listed together, and nothing is kept unless all can. The
report (``--report=report.json``) is one object: ``dataset``, ``split``, ``label_encoding`` (how the label files
hold the ids), ``pairs``, ``sizes`` (width x height → images), ``pixels`` (class → pixels at the labels' own size,
and ``ignored``), ``faults`` (a list of ``{"file", "fault"}``) and ``prepared`` (the folder).
"""

import json
import os
from pathlib import Path
from typing import Any

from absl import flags

from sean_jax import cli
from sean_jax.data.builder import LABEL_MODES, prepare
from sean_jax.data.datasets import DATASETS, load_dataset
from sean_jax.data.listing import FaultsFoundError
from sean_jax.data.prepared import PreparedSet
from sean_jax.data.sources import default_data_dir, resolve_source_dir
from sean_jax.errors import UserError

# Faults named on the terminal.
_SHOWN = 20


def main() -> None:
    """Prepares what the flags ask for, writes the report, and fails if any file is at fault."""
    args = flags.FLAGS
    dataset = load_dataset(args.dataset)
    split = args.split or next(iter(dataset.splits))
    labels = args.labels or ("resized" if dataset.split(split).labels else "none")
    source_dir = resolve_source_dir(dataset, args.source_dir, args.data_dir, args.height, args.width)
    report: dict[str, Any] = {"dataset": dataset.name, "split": split, "labels": labels}
    try:
        prepared = prepare(
            dataset,
            split=split,
            source_dir=source_dir,
            data_dir=args.data_dir,
            height=args.height,
            width=args.width,
            labels=labels,
        )
    except FaultsFoundError as error:
        faults = [{"file": fault.file, "fault": fault.fault} for fault in error.faults]
        _write_report(args.report, {**report, "label_encoding": None, "pairs": 0, "faults": faults, "prepared": None})
        listed = "; ".join(str(fault) for fault in error.faults[:_SHOWN])
        if len(faults) > _SHOWN:
            listed += f"; and {len(faults) - _SHOWN} more, which --report=report.json lists"
        number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise UserError(f"{number}, nothing was prepared: {listed}") from None
    _write_report(args.report, {**report, **_facts(prepared), "faults": [], "prepared": str(prepared.directory)})
    print(_summary(prepared))


def _facts(prepared: PreparedSet) -> dict[str, Any]:
    metadata = prepared.metadata
    return {
        "label_encoding": ", ".join(metadata["label_encoding"]) or None,
        "pairs": len(prepared),
        "sizes": metadata["sizes"],
        "pixels": metadata["pixels"],
    }


def _summary(prepared: PreparedSet) -> str:
    metadata = prepared.metadata
    size = sum(file.stat().st_size for file in prepared.directory.iterdir())
    what = "images" if prepared.labels == "none" else "pairs"
    lines = [
        f"{metadata['dataset']} {metadata['split']}: {len(prepared)} {what}, no faults",
        f"  as they come: {', '.join(f'{count} of {size}' for size, count in metadata['sizes'].items())}",
        f"  prepared at {prepared.width}x{prepared.height}, labels {prepared.labels}: {size / 1e6:.1f} MB in "
        f"{prepared.directory}",
    ]
    total = sum(metadata["pixels"].values())
    for name, count in metadata["pixels"].items():
        lines.append(f"  {name:16} {count / total:8.3%} of the labels' pixels")
    return "\n".join(lines)


def _write_report(path: str | None, report: dict[str, Any]) -> None:
    """Writes the file whole or not at all."""
    if path is None:
        return
    file = Path(path).expanduser()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write --report={path}: {error.strerror}; choose another file") from None


def _define_flags() -> None:
    flags.DEFINE_string("dataset", None, f"The data set: {', '.join(DATASETS)} or a .toml file.", required=True)
    flags.DEFINE_string("source_dir", None, "Its folder, as downloaded; not needed for minicity.")
    flags.DEFINE_string("data_dir", default_data_dir(), "Where prepared sets are kept ($SEAN_JAX_DATA_DIR).")
    flags.DEFINE_integer("height", 512, "Height of the prepared images.", lower_bound=1)
    flags.DEFINE_integer("width", 1024, "Width of the prepared images.", lower_bound=1)
    flags.DEFINE_string("split", None, "Which split; default: the first, which is train.")
    flags.DEFINE_enum(
        "labels",
        None,
        LABEL_MODES,
        "none: target of adaptation; resized: source; original: scoring. "
        "Default: resized, or none where the split has no labels.",
    )
    flags.DEFINE_string("report", None, "Where to write the report, a JSON file.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, "sean_jax.prepare")
