"""TOML files that describe a data set or a label space, checked key by key.

``experiments/datasets/camvid_day.toml`` explains the keys, ``camvid_colors.toml`` those for colour labels. Every
error message is one line that names the file, the line in it, what was got and what was expected.
"""

import re
from pathlib import Path
from typing import Any

from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.label_spaces import IGNORE_LABEL, LABEL_SPACES, Color, LabelSpace, default_color
from sean_jax.data.patterns import wildcards
from sean_jax.data.toml_file import TomlFile

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DATASET_KEYS = (
    *("name", "label_space", "label_format", "ignored_ids", "evaluation_split", "selection_split"),
    *("ignored_colors", "splits", "classes", "folder"),
)
_CLASS_KEYS = ("name", "color", "colors", "id", "ids", "includes")
# Of LABEL_ENCODINGS; trainIds are ids like others: a file says what each means.
_LABEL_FORMATS = ("ids", "red16", "rgb")
_LONGEST, _MOST_STARS = 1000, 4  # of a pattern
_SPLIT_KEYS = ("images", "labels", "frames")


def read_label_space(path: str) -> LabelSpace:
    """The label space a TOML file defines with ``name`` and ``[[classes]]``; a data set's file will do."""
    file = TomlFile(path)
    file.known_keys(file.data, _DATASET_KEYS)
    return _label_space(file)


def read_dataset(path: str) -> Dataset:
    """The data set a TOML file describes."""
    file = TomlFile(path)
    file.known_keys(file.data, _DATASET_KEYS)
    name = file.data.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        file.fail(f"name is {name!r}; expected lower-case letters, digits and underscores, a letter first", "name")
    label_format = file.data.get("label_format", "ids")
    if label_format not in _LABEL_FORMATS:
        file.fail(f"label_format is {label_format!r}; expected one of {', '.join(_LABEL_FORMATS)}", "label_format")
    wrong, right = ("ids", "colors") if label_format == "rgb" else ("colors", "ids")
    if f"ignored_{wrong}" in file.data:
        message = f"ignored_{wrong} has no meaning with label_format {label_format!r}; give ignored_{right}"
        file.fail(message, f"ignored_{wrong}")
    splits, folder = _splits(file), _folder(file)
    labelled = [split for split in splits if splits[split].labels]
    if not labelled and "classes" not in file.data:  # a target of adaptation alone: nothing reads its label space
        return Dataset(name, splits, {}, (), (label_format,), LABEL_SPACES["19"], evaluation_split=None, folder=folder)
    space = _label_space(file)
    label_colors: list[tuple[Color, int]] = []
    if label_format == "rgb":
        label_colors = _label_colors(file)
        label_ids = dict(enumerate(space.classes))
        ignored_ids = (IGNORE_LABEL,) if any(label_id == IGNORE_LABEL for _, label_id in label_colors) else ()
    else:
        label_ids, ignored_ids = _ids(file)
        label_colors = _palette_colors(file)
    return Dataset(
        name=name,
        splits=splits,
        label_ids=label_ids,
        ignored_ids=ignored_ids,
        label_encodings=(label_format,),
        label_space=space,
        evaluation_split=_labelled_split(file, "evaluation_split", labelled, _default_evaluation_split(labelled)),
        selection_split=_labelled_split(file, "selection_split", labelled, None),
        label_colors=tuple(label_colors),
        folder=folder,
    )


def _folder(file: TomlFile) -> str | None:
    """The folder of the files, which the description names relative to its own."""
    folder = file.data.get("folder")
    if folder is None:
        return None
    if not isinstance(folder, str) or folder.startswith("~"):
        file.fail(f"folder is {folder!r}; expected a path, relative to the folder of this file", "folder")
    return str(Path(file.path).parent / folder)


def _default_evaluation_split(labelled: list[str]) -> str | None:
    for split in (*("val", "test", "train"), *labelled):
        if split in labelled:
            return split
    return None


def _labelled_split(file: TomlFile, key: str, labelled: list[str], default: str | None) -> str | None:
    split = file.data.get(key, default)
    if split is not None and split not in labelled:
        file.fail(f"{key} is {split!r}; expected a split with labels ({', '.join(labelled) or 'there is none'})", key)
    return split


def _splits(file: TomlFile) -> dict[str, Split]:
    tables = file.data.get("splits")
    if not isinstance(tables, dict) or not tables:
        file.fail("no splits; expected at least one table such as [splits.train] with images and labels", "splits")
    splits = {}
    for name, table in tables.items():
        if not _NAME.fullmatch(name) or not isinstance(table, dict):
            file.fail(
                f"split {name!r}; expected a table [splits.NAME], NAME of lower-case letters and digits", "splits", name
            )
        file.known_keys(table, _SPLIT_KEYS, "splits", name)
        images, labels = table.get("images"), table.get("labels")
        if not isinstance(images, str) or not (labels is None or isinstance(labels, str)):
            message = "expected images, and labels where there are any, as patterns such as 'images/*.png'"
            file.fail(message, "splits", name)
        for key, pattern in (("images", images), ("labels", labels)):
            if pattern is None:
                continue
            if len(pattern) > _LONGEST or any(part.count("*") > _MOST_STARS for part in pattern.split("/")):
                # What stars stand for is found by trying, which takes ages where there are many.
                limits = f"at most {_LONGEST} characters, and {_MOST_STARS} '*' in a name"
                file.fail(f"{key} is {pattern[:80]!r}…; expected {limits}", "splits", name, key)
            if ".." in pattern or "**" in pattern or pattern.startswith("~"):
                file.fail(f"{key} is {pattern!r}; expected a path without '~', '..' and '**'", "splits", name, key)
            if key == "images" and pattern.startswith("/"):
                file.fail(f"images is {pattern!r}; expected a path inside the folder", "splits", name, key)
        if not wildcards(images):
            file.fail(f"images is {images!r}; expected a pattern with '*'", "splits", name, "images")
        if labels is not None and wildcards(images) != wildcards(labels):
            file.fail(
                f"images has the wildcards {wildcards(images)} and labels {wildcards(labels)}; expected the same, "
                "since what they stand for is what pairs images with labels",
                "splits",
                name,
                "labels",
            )
        splits[name] = Split(images, labels, frames=_frames(file, table, name))
    return splits


def _frames(file: TomlFile, table: dict[str, Any], split: str) -> tuple[int, int] | None:
    frames = table.get("frames")
    if frames is None:
        return None
    numbers = isinstance(frames, list) and len(frames) == 2 and all(type(number) is int for number in frames)
    if not numbers or not 0 <= frames[0] < frames[1]:
        file.fail(f"frames is {frames!r}; expected [FIRST, END], 0 <= FIRST < END", "splits", split, "frames")
    return frames[0], frames[1]


def _label_space(file: TomlFile) -> LabelSpace:
    name = file.data.get("label_space", file.data.get("name"))
    if not isinstance(name, str) or not name:
        file.fail(f"name is {name!r}; expected a text", "name")
    classes = _class_tables(file)
    names, palette, includes = [], [], []
    known: set[str] = set()
    for i, table in enumerate(classes):
        class_name, merges = table.get("name"), table.get("includes", [])
        if not isinstance(class_name, str) or not class_name:
            file.fail(f"a class's name is {class_name!r}; expected a text", "classes", i, "name")
        if not isinstance(merges, list) or not all(isinstance(merged, str) for merged in merges):
            file.fail(f"includes is {merges!r}; expected a list of class names", "classes", i, "includes")
        for key, texts in (("name", [class_name]), ("includes", merges)):
            for text in texts:
                if text in known:
                    file.fail(f"class {text!r} appears for the second time; name each once", "classes", i, key)
                known.add(text)
        names.append(class_name)
        palette.append(_color(file, table, i))
        includes.append(tuple(merges))
    try:
        return LabelSpace(name, tuple(names), tuple(palette), tuple(includes))
    except ValueError as error:
        file.fail(str(error), "classes")


def _class_tables(file: TomlFile) -> list[dict[str, Any]]:
    classes = file.data.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(table, dict) for table in classes):
        file.fail("no classes; expected one table [[classes]] with a name for each class", "classes")
    for i, table in enumerate(classes):
        file.known_keys(table, _CLASS_KEYS, "classes", i)
    return classes


def _color(file: TomlFile, table: dict[str, Any], number: int) -> Color:
    """The colour in pictures: ``color``, or the first of ``colors``, or one by the class's name."""
    colors = _colors(file, table, number)
    return colors[0] if colors else default_color(table["name"], number)


def _colors(file: TomlFile, table: dict[str, Any], number: int) -> list[Color]:
    if "color" in table and "colors" in table:
        file.fail("expected either color = [r, g, b] or colors = [[r, g, b], ...]", "classes", number, "colors")
    key = "colors" if "colors" in table else "color"
    values = table.get("colors", [table["color"]] if "color" in table else [])
    return _checked_colors(file, values, table.get(key), "classes", number, key)


def _checked_colors(file: TomlFile, values: Any, shown: Any, *keys: str | int) -> list[Color]:
    def is_color(color: Any) -> bool:
        return isinstance(color, list) and len(color) == 3 and all(_is_byte(value) for value in color)

    if not isinstance(values, list) or not all(is_color(color) for color in values):
        file.fail(f"{keys[-1]} is {shown!r}; expected [red, green, blue], each 0 to 255", *keys)
    return [(color[0], color[1], color[2]) for color in values]


def _label_colors(file: TomlFile) -> list[tuple[Color, int]]:
    """Colour → id for labels of colours: a class's place is its id, and what is ignored gets IGNORE_LABEL."""
    values = file.data.get("ignored_colors", [])
    found = dict.fromkeys(_checked_colors(file, values, values, "ignored_colors"), IGNORE_LABEL)
    for i, table in enumerate(_class_tables(file)):
        key = "colors" if "colors" in table else "color"
        for wrong in ("id", "ids"):
            if wrong in table:
                file.fail(f"{wrong} has no meaning with label_format 'rgb'; give colors", "classes", i, wrong)
        colors = _colors(file, table, i)
        if not colors:
            file.fail(f"class {table['name']!r} needs color or colors, as label_format is 'rgb'", "classes", i)
        for color in colors:
            if color in found:
                file.fail(f"colour {list(color)} appears for the second time", "classes", i, key)
            found[color] = i
    return list(found.items())


def _palette_colors(file: TomlFile) -> list[tuple[Color, int]]:
    """Colour → id where the file gives a class a colour of its own."""
    found: dict[Color, list[int]] = {}
    for i, table in enumerate(_class_tables(file)):
        for color in _colors(file, table, i):
            found.setdefault(color, []).append(table["id"] if "id" in table else table["ids"][0])
    return [(color, ids[0]) for color, ids in found.items() if len(ids) == 1]


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _ids(file: TomlFile) -> tuple[dict[int, str], tuple[int, ...]]:
    """Raw ids of the classes, and those that are ignored; each id may stand once."""
    ignored = file.data.get("ignored_ids", [])
    if not isinstance(ignored, list) or not all(_is_byte(value) for value in ignored):
        file.fail(f"ignored_ids is {ignored!r}; expected a list of ids, each 0 to 255", "ignored_ids")
    label_ids: dict[int, str] = {}
    for i, table in enumerate(_class_tables(file)):
        if ("id" in table) == ("ids" in table):
            file.fail(f"class {table['name']!r} needs either id = NUMBER or ids = [NUMBER, ...]", "classes", i)
        key = "id" if "id" in table else "ids"
        ids = [table["id"]] if key == "id" else table["ids"]
        if not isinstance(ids, list) or not ids or not all(_is_byte(value) for value in ids):
            file.fail(f"{key} is {table[key]!r}; expected ids from 0 to 255", "classes", i, key)
        for label_id in ids:
            if label_id in label_ids or label_id in ignored:
                other = f"class {label_ids[label_id]!r}" if label_id in label_ids else "ignored_ids"
                file.fail(f"id {label_id} is in {other} and in class {table['name']!r}", "classes", i, key)
            label_ids[label_id] = table["name"]
    return label_ids, tuple(ignored)
