"""Checks a data set and prepares it for training.

    python -m sean_jax.prepare --dataset=gta5 --dataset_dir=FOLDER --report=report.json

``train`` and ``evaluate`` prepare what they need themselves; this command does it beforehand and reports what it finds.
It checks all files and lists those that cannot be used. If there are any, it keeps nothing, unless ``--skip_bad``
leaves them out. The encoding of the labels is detected, or given by ``--label_encoding``. Later runs of ``train`` and
``evaluate`` use the same encoding and leave out the same files, until a file changes.

The report is a JSON object: ``dataset``, ``split``, ``labels``, ``label_encoding`` (of the label files; null if
unknown), ``pairs`` (how many can be used), ``sizes`` (width x height → images), ``pixels`` (class → pixels at the
labels' own size, and ``ignored``), ``notes`` (what decided where labels could be read in several ways), ``faults`` (a
list of ``{"file", "fault"}``, including files that were left out) and ``prepared`` (the folder; null if nothing was
prepared).
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from sean_jax import atomic
from sean_jax.cli import command as cli
from sean_jax.data.catalogue import DATASETS, load_dataset
from sean_jax.data.dataset import LABEL_ENCODINGS
from sean_jax.data.folders import default_data_dir, resolve_source_dir
from sean_jax.data.preparation.builder import prepare
from sean_jax.data.preparation.job import LABEL_MODES
from sean_jax.data.preparation.listing import BadFilesError
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError

_SHOWN = 20  # errors printed on the terminal
_FACTS = ("label_encoding", "pairs", "sizes", "pixels", "notes")


def main() -> None:
    """Prepares a split and writes the report; fails if a file is bad and not left out."""
    args = flags.FLAGS
    flag, folder = _dataset_dir(args.dataset_dir, args.source_dir)
    if args.report and not (parent := Path(args.report).expanduser().parent).is_dir():
        raise UserError(f"--report={args.report}: the folder {parent} does not exist; create it first")
    dataset = load_dataset(args.dataset)
    split = args.split or next(iter(dataset.splits))
    labels = args.labels or ("resized" if dataset.split(split).labels else "none")
    data_dir = args.data_dir or default_data_dir()
    source_dir = resolve_source_dir(dataset, folder, data_dir, args.height, args.width, flag)
    report: dict[str, Any] = {"dataset": dataset.name, "split": split, "labels": labels}
    try:
        prepared = prepare(
            dataset,
            split=split,
            source_dir=source_dir,
            data_dir=data_dir,
            height=args.height,
            width=args.width,
            labels=labels,
            flag=flag,
            label_encoding="ids" if args.label_encoding == "palette" else args.label_encoding,
            skip_bad=args.skip_bad,
            label_orientation=args.label_orientation,
        )
    except BadFilesError as error:
        faults = [problem.to_dict() for problem in error.problems]
        facts = {name: error.facts[name] for name in _FACTS}
        _write_report(args.report, {**report, **facts, "faults": faults, "prepared": None})
        raise UserError(f"{_number(faults)}, nothing was prepared: {_listed(faults)}") from None
    metadata = prepared.metadata
    facts = {name: metadata[name] for name in (*_FACTS, "faults")}
    _write_report(args.report, {**report, **facts, "prepared": str(prepared.directory)})
    print(_summary(prepared))


def _dataset_dir(dataset_dir: str | None, source_dir: str | None) -> tuple[str, str | None]:
    """The flag that names the data set's folder, for messages, and the folder."""
    if source_dir is None:
        return "--dataset_dir", dataset_dir
    if dataset_dir not in (None, source_dir):
        raise UserError(
            f"--dataset_dir={dataset_dir} and --source_dir={source_dir} name two folders of one data set; give one flag"
        )
    return "--source_dir" if dataset_dir is None else "--dataset_dir", source_dir


def _number(faults: list[dict[str, str]]) -> str:
    return "1 error" if len(faults) == 1 else f"{len(faults)} errors"


def _listed(faults: list[dict[str, str]]) -> str:
    listed = "; ".join(f"{fault['file']}: {fault['fault']}" for fault in faults[:_SHOWN])
    more = len(faults) - _SHOWN
    return listed + (f"; and {more} more, which --report=report.json lists" if more > 0 else "")


def _summary(prepared: PreparedSet) -> str:
    metadata = prepared.metadata
    faults = metadata["faults"]
    size = sum(file.stat().st_size for file in prepared.directory.iterdir() if file.is_file())
    what = "images" if prepared.labels == "none" else "pairs"
    lines = [
        f"{metadata['dataset']} {metadata['split']}: {len(prepared)} {what}, "
        + (f"left out: {len(faults)}" if faults else "no errors"),
        *(f"  left out: {fault['file']}: {fault['fault']}" for fault in faults),
        f"  original sizes: {', '.join(f'{count} of {size}' for size, count in metadata['sizes'].items())}",
        f"  prepared at {prepared.width}x{prepared.height}, labels {prepared.labels}: {size / 1e6:.1f} MB in "
        f"{prepared.directory}",
    ]
    if metadata["label_encoding"]:
        lines.insert(1, f"  labels hold: {metadata['label_encoding']}")
    lines[2:2] = [f"  {note}" for note in metadata["notes"]]
    total = sum(metadata["pixels"].values())
    for name, count in metadata["pixels"].items():
        lines.append(f"  {name:16} {count / total:8.3%} of the labels' pixels")
    return "\n".join(lines)


def _write_report(path: str | None, report: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        atomic.write(Path(path).expanduser(), json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write --report={path}: {error.strerror}; choose another file") from None


def _define_flags() -> None:
    flags.DEFINE_string("dataset", None, f"data set: {', '.join(DATASETS)} or a TOML file", required=True)
    flags.DEFINE_string("dataset_dir", None, "its folder, as downloaded; not needed for minicity")
    flags.DEFINE_string("source_dir", None, "former name of --dataset_dir")
    flags.DEFINE_string(
        "data_dir", None, "where prepared data are kept; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data"
    )
    flags.DEFINE_integer("height", 512, "height of the prepared images in pixels", lower_bound=1)
    flags.DEFINE_integer("width", 1024, "width of the prepared images in pixels", lower_bound=1)
    flags.DEFINE_string("split", None, "split to prepare; default: the first, which is train")
    flags.DEFINE_enum(
        "labels",
        None,
        LABEL_MODES,
        "resized: for a source; none: for a target; original: for evaluation; "
        "default: resized, or none for a split without labels",
    )
    flags.DEFINE_enum(
        "label_encoding",
        None,
        ("palette", *LABEL_ENCODINGS),
        "encoding of the label files, if it cannot be detected: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in LABEL_ENCODINGS.items())
        + "; palette: the same as ids. Setting this disables the label plausibility checks.",
    )
    flags.DEFINE_enum(
        "label_orientation",
        None,
        ("shown", "stored"),
        "where a label's orientation tag differs from its image's: its pixels are turned as viewers show it, or are "
        "stored like its image's; default: what the sizes tell",
    )
    flags.DEFINE_bool("skip_bad", None, "leave bad files out and list them, instead of refusing the data set")
    flags.DEFINE_string("report", None, "JSON file to write the report to")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, "sean_jax.prepare")
