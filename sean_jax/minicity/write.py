"""Writes minicity data sets to disk: `minicity_game` in the layout of GTA-5, `minicity_camera` in Cityscapes'."""

import functools
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sean_jax.errors import UserError

from . import workers
from .picture import check, draw

MANIFEST = "minicity.json"
DRAWING = 1  # version of the drawing; raise it with every change, so that data sets on disk are drawn again

# Enough to train and score on, drawn within seconds. The game's test split measures scores in the source domain.
DEFAULT_COUNTS: dict[str, dict[str, int]] = {
    "minicity_game": {"train": 300, "test": 60},
    "minicity_camera": {"train": 300, "test": 60},
}

Palette = Mapping[int, tuple[int, int, int]]


def paths(look: str, split: str, index: int) -> tuple[Path, Path]:
    """Returns the paths of picture `index` (from 0) of a split and of its labels, relative to the data set's root."""
    if look == "minicity_game":
        name = f"{index + 1:05d}.png"
        return Path(split, "images", name), Path(split, "labels", name)
    stem = f"minicity_{index:06d}_000019"
    return (
        Path("leftImg8bit", split, "minicity", f"{stem}_leftImg8bit.png"),
        Path("gtFine", split, "minicity", f"{stem}_gtFine_labelIds.png"),
    )


def scene_seed(look: str, split: str, index: int, seed: int) -> int:
    """Returns the seed of a picture's scene: a 64-bit hash, so that looks, splits and seeds share no scene."""
    words = [seed, *f"{look}/{split}/{index}".encode()]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Plan:
    """The definition of a data set, also written to disk as its manifest."""

    look: str
    height: int
    width: int
    splits: dict[str, int]
    seed: int
    drawing: int = DRAWING

    def tasks(self) -> list[tuple[str, int]]:
        """Returns all pictures as (split, index)."""
        return [(split, index) for split, count in self.splits.items() for index in range(count)]


def generate(
    look: str,
    root: Path,
    *,
    height: int,
    width: int,
    splits: dict[str, int],
    palette: Palette | None = None,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Draws a data set into the folder `root`, completely or not at all.

    The pictures are drawn in a temporary folder beside `root`, which is renamed at the end. If the same data set
    exists, or another process completes it first, it is kept: the same arguments draw the same files.

    Args:
        look: a key of `LOOKS`. `minicity_game` is written to `SPLIT/images` and `SPLIT/labels`, `minicity_camera` to
            `leftImg8bit/SPLIT/minicity` and `gtFine/SPLIT/minicity`. Labels are labelIds.
        root: the folder to create; it may exist if it is empty.
        height, width: pixels, at least 16 each.
        splits: number of pictures in each split, see `DEFAULT_COUNTS`.
        palette: label id → RGB colour. With it, the labels of `minicity_game` are palette PNGs as in GTA-5, black for
            other ids. Without it, and for `minicity_camera`, labels are grey PNGs.
        seed: non-negative; another seed draws other scenes.
        progress: whether to show a progress bar.

    Raises:
        UserError: the look is unknown, the size is below 16, a split is invalid, or `root` contains other files.
        OSError: the disk is full; names the folder.
        RuntimeError: a worker process was killed.
    """
    check(look, height, width)
    if not splits or any(count < 1 or not name or "/" in name for name, count in splits.items()):
        raise UserError(f"minicity splits {splits} are invalid; give at least one name, each with a positive count")
    plan, root = Plan(look, height, width, splits, seed), Path(root).absolute()
    if _is_complete(root, plan):
        return
    draft = root.with_name(f".{root.name}.{uuid.uuid4().hex[:12]}")
    try:
        _create_folders(draft, plan)
        with tqdm(total=len(plan.tasks()), desc=look, unit="img", disable=not progress) as bar:
            for _ in _draw_all(draft, plan, palette):
                bar.update()
        _publish(draft, root, plan)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_complete(root: Path, plan: Plan) -> bool:
    """Returns whether `root` contains this data set; raises UserError if it contains other files."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = None
    if manifest == asdict(plan):
        return True
    found = f"a different minicity data set ({manifest})" if manifest else "files that are not a minicity data set"
    raise UserError(f"{root} contains {found}; remove it or choose another folder")


def _create_folders(draft: Path, plan: Plan) -> None:
    """Creates the folders and the manifest."""
    for folder in {path.parent for split in plan.splits for path in paths(plan.look, split, 0)}:
        (draft / folder).mkdir(parents=True)
    (draft / MANIFEST).write_text(json.dumps(asdict(plan), indent=1) + "\n")


def _draw_all(draft: Path, plan: Plan, palette: Palette | None) -> Iterator[None]:
    """Draws all pictures, yielding after each; large data sets are drawn on all cores."""
    tasks = plan.tasks()
    count = workers.worker_count(len(tasks))
    draw_one = functools.partial(write_pair, draft, plan, palette)
    try:
        yield from workers.run(draw_one, tasks, count) if count > 1 else map(draw_one, tasks)
    except OSError as error:
        if error.errno is None:  # not an error of the operating system
            raise
        raise OSError(error.errno, error.strerror, str(draft.parent)) from None


def write_pair(folder: Path, plan: Plan, palette: Palette | None, task: tuple[str, int]) -> None:
    """Draws one picture and writes it and its labels; `task` is its split and index."""
    split, index = task
    image, label = draw(plan.look, scene_seed(plan.look, split, index, plan.seed), plan.height, plan.width)
    image_path, label_path = paths(plan.look, split, index)
    # The camera's noise does not compress, so a higher level would take time and save nothing.
    Image.fromarray(image).save(folder / image_path, compress_level=1)
    label_image = Image.fromarray(label)
    if palette and plan.look == "minicity_game":
        colors = np.zeros((256, 3), np.uint8)
        colors[list(palette)] = list(palette.values())
        label_image.putpalette(colors.tobytes())
    label_image.save(folder / label_path)


def _publish(draft: Path, root: Path, plan: Plan) -> None:
    """Moves the finished folder into place with one atomic rename."""
    try:
        draft.rename(root)
    except OSError:
        if not _is_complete(root, plan):  # keeps the data set if another process completed it first
            raise
