"""Tiny data sets in the true on-disk formats, generated: nothing here is copied from anybody's images."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import Dataset, Split, label_map
from sean_jax.data.label_spaces import CITYSCAPES_COLORS, LABEL_SPACES, LabelSpace
from sean_jax.data.preparation.builder import prepare
from sean_jax.data.preparation.listing import BadFilesError

SHARED = Path(__file__).parents[2] / "shared"
# Width × height of each GTA-5 frame; the real ones differ among themselves too.
GTA5_SIZES = ((38, 20), (38, 22), (36, 20), (38, 20), (40, 20))


def image(seed: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3] of noise: no two seeds look alike."""
    return np.random.default_rng([1, seed]).integers(0, 256, (height, width, 3), np.uint8)


def label(seed: int, width: int, height: int, ids: tuple[int, ...]) -> np.ndarray:
    """uint8 [height, width] of ids drawn from ``ids``."""
    return np.random.default_rng([2, seed]).choice(np.array(ids, np.uint8), (height, width))


def valid_ids(name: str) -> tuple[int, ...]:
    """The ids that occur in a data set."""
    dataset = DATASETS[name]
    found = [label_id for label_id, class_name in dataset.label_ids.items() if class_name not in dataset.absent_classes]
    return (*found, *dataset.ignored_ids)


def save(array: np.ndarray, path: Path, palette: bool = False) -> None:
    """Writes an 8-bit PNG (or, by the name, JPEG) and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        colors = np.zeros((256, 3), np.uint8)
        colors[:19] = list(CITYSCAPES_COLORS.values())
        picture = picture.convert("L")
        picture.putpalette(colors.tobytes())
    picture.save(path)


def to_train_ids(ids: np.ndarray, name: str) -> np.ndarray:
    """uint8 trainIds of raw ids, 255 where ignored, by the data set's table."""
    return label_map(DATASETS[name], LABEL_SPACES["19"])[ids]


def to_colors(ids: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3]: classes in Cityscapes' colours, all else black."""
    colors = np.zeros((256, 3), np.uint8)
    for label_id, name in DATASETS["gta5"].label_ids.items():
        colors[label_id] = CITYSCAPES_COLORS[name]
    return colors[ids]


def gta5(root: Path, count: int = 5) -> Path:
    """``images/00001.png`` and palette ``labels/00001.png``, of several sizes."""
    for i in range(count):
        size = GTA5_SIZES[i % len(GTA5_SIZES)]
        save(image(i, *size), root / f"images/{i + 1:05d}.png")
        save(label(i, *size, valid_ids("gta5")), root / f"labels/{i + 1:05d}.png", palette=True)
    return root


def synthia(root: Path, count: int = 3) -> Path:
    """``RGB/0000000.png`` and 16-bit ``GT/LABELS/0000000.png``: class in red, instance in green."""
    for i in range(count):
        save(image(10 + i, 40, 24), root / f"RGB/{i:07d}.png")
        classes = label(10 + i, 40, 24, valid_ids("synthia")).astype(np.uint16)
        instances = np.random.default_rng(i).integers(0, 1 << 16, classes.shape, np.uint16)
        save_16_bit(np.stack([classes, instances, np.zeros_like(classes)], -1), root / f"GT/LABELS/{i:07d}.png")
    return root


def cityscapes(root: Path, counts: dict[str, int] | None = None, size: tuple[int, int] = (64, 32)) -> Path:
    """``leftImg8bit`` and ``gtFine`` of two cities; the counts are per split."""
    for split, count in (counts or {"train": 5, "val": 3}).items():
        for i in range(count):
            city = ("aachen", "zurich")[i % 2]
            stem = f"{split}/{city}/{city}_{i:06d}_000019"
            save(image(20 + i, *size), root / f"leftImg8bit/{stem}_leftImg8bit.png")
            save(label(20 + i, *size, valid_ids("cityscapes")), root / f"gtFine/{stem}_gtFine_labelIds.png")
    return root


def save_16_bit(array: np.ndarray, path: Path) -> None:
    """Writes uint16 [height, width, 3] as a 16-bit RGB PNG, each row with another of PNG's five filters."""
    height, width, _ = array.shape
    rows = array.astype(">u2").view(np.uint8).reshape(height, width * 6).astype(np.int64)
    lines = []
    for y, row in enumerate(rows):
        above = rows[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(6, np.int64), other[:-6]]) for other in (row, above))
        estimate = left + above - corner
        nearest = np.argmin([abs(estimate - left), abs(estimate - above), abs(estimate - corner)], axis=0)
        paeth = np.choose(nearest, [left, above, corner])
        predicted = (np.zeros_like(row), left, above, (left + above) // 2, paeth)[y % 5]
        lines.append(bytes([y % 5]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"".join(lines))) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def prepare_small(dataset, root, data_dir, **settings):
    """Prepares a train split at 30 × 16 with resized labels."""
    settings = {"split": "train", "height": 16, "width": 30, "labels": "resized", "progress": False, **settings}
    return prepare(dataset, source_dir=root, data_dir=data_dir, **settings)


def errors_of(dataset, root, data_dir, **settings):
    """The BadFilesError that preparing raises."""
    with pytest.raises(BadFilesError) as error:
        prepare_small(dataset, root, data_dir, **settings)
    return error.value


def assert_reported(found, expected):
    """That a report's errors are those expected: file → part of the message."""
    assert {entry["file"] for entry in found} == set(expected)
    for entry in found:
        assert expected[entry["file"]] in entry["fault"]


# Put before a script, it makes Python find no TensorFlow, as where it is not installed.
WITHOUT_TENSORFLOW = """
import importlib.machinery
find_spec = importlib.machinery.PathFinder.find_spec
def hide(name, path=None, target=None):
    return None if name.split(".")[0] == "tensorflow" else find_spec(name, path, target)
importlib.machinery.PathFinder.find_spec = hide
"""


COLORS = {"background": (0, 0, 0), "road": (128, 64, 128), "car": (0, 0, 142)}  # of the classes of ``own``


def own(colors: bool) -> Dataset:
    """A data set of three classes whose labels are ids, with or without colours for its palettes."""
    space = LabelSpace("own", tuple(COLORS), tuple(COLORS.values()), ((),) * 3)
    label_colors = tuple((color, i) for i, color in enumerate(COLORS.values())) if colors else ()
    split = Split("images/*.png", "labels/*.png")
    return Dataset(
        "own", {"train": split}, dict(enumerate(COLORS)), (), ("ids",), space, "train", label_colors=label_colors
    )
