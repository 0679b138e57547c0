"""Writes tiny data sets in the layouts of GTA-5, Cityscapes and CamVid: random blocks, each class with its own grey."""

import pathlib

import numpy as np
from PIL import Image

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def pair(image: pathlib.Path, label: pathlib.Path | None, seed: int, size: tuple[int, int] = (64, 32)) -> None:
    """Writes an image of ``size`` (width, height) and its label."""
    rng = np.random.default_rng(seed)
    width, height = size
    indices = rng.integers(0, len(LABEL_IDS), (height // 8, width // 8)).repeat(8, 0).repeat(8, 1)
    ids = np.array(LABEL_IDS, np.uint8)[indices]
    ids[:2] = 0  # ignored
    grey = np.clip(indices * 13 + rng.normal(0, 8, indices.shape), 0, 255).astype(np.uint8)
    for path, array in ((image, np.stack([grey, 255 - grey, grey // 2], -1)), (label, ids)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def gta5(root: pathlib.Path, count: int = 5) -> pathlib.Path:
    for i in range(count):
        pair(root / f"images/{i:05d}.png", root / f"labels/{i:05d}.png", i)
    return root


def cityscapes(root: pathlib.Path, labels: bool = True) -> pathlib.Path:
    """Writes five images for training and five for validation; the latter have two sizes."""
    for split in ("train", "val"):
        for i in range(5):
            name = f"{split}/aachen/aachen_{i:06d}_000019"
            label = root / f"gtFine/{name}_gtFine_labelIds.png" if labels else None
            size = (48, 40) if split == "val" and i in (1, 2) else (64, 32)
            pair(root / f"leftImg8bit/{name}_leftImg8bit.png", label, 100 + i + 10 * (split == "val"), size)
    return root


def camvid(root: pathlib.Path) -> pathlib.Path:
    """Writes the folders that the CamVid experiments read. Dusk has all 62 frames, since the experiments split it."""
    for split, count in (("day_train", 3), ("day_val", 2), ("dusk_train", 62)):
        for i in range(count):
            image = root / split / "images" / f"0001TP_{i:06d}.jpg"
            pair(image, None, 200 + i, (24, 16))
            ids = np.random.default_rng(i).integers(0, 12, (16, 24)).astype(np.uint8)
            label = root / split / "labels" / f"{image.stem}.png"
            label.parent.mkdir(exist_ok=True)
            Image.fromarray(ids).save(label)
    return root


def load_image(path) -> Image.Image:
    """An image file, read and closed."""
    with Image.open(path) as image:
        image.load()
    return image
