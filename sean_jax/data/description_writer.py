"""Writes TOML files that describe a data set, as :mod:`sean_jax.data.descriptions` reads them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sean_jax.data.dataset import TRAIN_IDS, Dataset, Split
from sean_jax.data.label_spaces import IGNORE_LABEL

# Encoding of label files (see LABEL_ENCODINGS) → label_format.
_FORMATS = {"ids": "ids", "train_ids": "ids", "red16": "red16", "rgb": "rgb"}


def describe(
    dataset: Dataset,
    name: str,
    splits: Mapping[str, Split],
    encoding: str | None,
    rest: Iterable[int] = (),
) -> str:
    """A description of files that lie beside it, with the classes and label values of ``dataset``.

    Args:
      dataset: what the labels mean.
      name: of the described data set.
      splits: its splits.
      encoding: what the label files hold, a key of :data:`sean_jax.data.dataset.LABEL_ENCODINGS`; None if no split has
        labels.
      rest: values in the label files that mean no class, besides those of the data set.
    """
    lines = [f"name = {_toml(name)}", 'folder = "."']
    if encoding is not None:
        colors = encoding == "rgb"
        by_class, ignored = _values(dataset, encoding)
        if not colors:
            ignored += sorted(set(rest) - set(ignored))
        lines += [f"label_space = {_toml(dataset.label_space.name)}", f"label_format = {_toml(_FORMATS[encoding])}"]
        lines.append(f"ignored_{'colors' if colors else 'ids'} = {_toml(ignored)}")
    for split, patterns in splits.items():
        lines += ["", f"[splits.{split}]", f"images = {_toml(patterns.images)}"]
        lines += [f"labels = {_toml(patterns.labels)}"] if patterns.labels else []
    if encoding is not None:
        space = dataset.label_space
        for values, class_name, color, merges in zip(
            by_class, space.classes, space.palette, space.includes, strict=True
        ):
            lines += ["", "[[classes]]", f"name = {_toml(class_name)}"]
            lines += [f"colors = {_toml(values)}"] if colors else [f"ids = {_toml(values)}", f"color = {_toml(color)}"]
            lines += [f"includes = {_toml(merges)}"] if merges else []
    return "\n".join(lines) + "\n"


def _values(dataset: Dataset, encoding: str) -> tuple[list[list[Any]], list[Any]]:
    """The ids or colours of each class of the data set's label space, and those that are ignored."""
    if encoding == "rgb":
        named = [(list(color), dataset.label_ids.get(label_id)) for color, label_id in dataset.label_colors]
    elif encoding == "train_ids":
        named = [*TRAIN_IDS.items(), (IGNORE_LABEL, None)]
    else:
        named = [*dataset.label_ids.items(), *((label_id, None) for label_id in dataset.ignored_ids)]
    by_class: list[list[Any]] = [[] for _ in dataset.label_space.classes]
    ignored: list[Any] = []
    for value, class_name in named:
        index = IGNORE_LABEL if class_name is None else dataset.label_space.index_of(class_name)
        (ignored if index == IGNORE_LABEL else by_class[index]).append(value)
    return by_class, ignored


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # strings, whole numbers and arrays are written alike in both
