"""Minicity on disk, in the form of the real sets: the game as GTA-5 comes, the camera as Cityscapes comes."""

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
DRAWING = 1  # to be raised with every change to what is drawn, so that sets on disk are not taken for new ones

# Enough to learn from and to score on, written within seconds; the game's test split scores the source domain itself.
DEFAULT_COUNTS: dict[str, dict[str, int]] = {
    "minicity_game": {"train": 300, "test": 60},
    "minicity_camera": {"train": 300, "test": 60},
}

Palette = Mapping[int, tuple[int, int, int]]


def paths(look: str, split: str, index: int) -> tuple[Path, Path]:
    """Where picture `index` (from 0) of a split and its labels lie under the data set's root."""
    if look == "minicity_game":
        name = f"{index + 1:05d}.png"
        return Path(split, "images", name), Path(split, "labels", name)
    stem = f"minicity_{index:06d}_000019"
    return (
        Path("leftImg8bit", split, "minicity", f"{stem}_leftImg8bit.png"),
        Path("gtFine", split, "minicity", f"{stem}_gtFine_labelIds.png"),
    )


def scene_seed(look: str, split: str, index: int, seed: int) -> int:
    """The seed of one picture's scene: 64 bits of a hash, so that looks, splits and data sets share no scene."""
    words = [seed, *f"{look}/{split}/{index}".encode()]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Plan:
    """What a data set consists of; also its manifest on disk."""

    look: str
    height: int
    width: int
    splits: dict[str, int]
    seed: int
    drawing: int = DRAWING

    def tasks(self) -> list[tuple[str, int]]:
        """Every picture as (split, index)."""
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
    """Draws a data set into the folder `root`, which appears whole or not at all.

    It is drawn in a temporary folder beside `root` that is renamed at the end. If the same set is there already, or
    another process finishes it first, that one is kept: the same arguments draw the same files.

    Args:
        look: a key of `LOOKS`; `minicity_game` is laid out as `SPLIT/images`, `SPLIT/labels`, `minicity_camera` as
            `leftImg8bit/SPLIT/minicity`, `gtFine/SPLIT/minicity`. Labels are labelIds.
        root: the folder to make; it may exist if it is empty.
        height, width: pixels, at least 16 each.
        splits: pictures in each split, see `DEFAULT_COUNTS`.
        palette: RGB colours by label id. `minicity_game`'s labels are palette PNGs as GTA-5's are, with these colours
            and black for the rest; without, and for `minicity_camera`, they are grey PNGs.
        seed: non-negative; another seed draws other scenes.
        progress: whether to show a progress bar.

    Raises:
        UserError: for an unknown look, a size below 16, an unusable split, or a folder that holds something else.
        OSError: for a full disk, with the folder that it holds.
        RuntimeError: if a worker process was killed.
    """
    check(look, height, width)
    if not splits or any(count < 1 or not name or "/" in name for name, count in splits.items()):
        raise UserError(f"minicity splits {splits} are not usable; name at least one, with a positive count each")
    plan, root = Plan(look, height, width, splits, seed), Path(root).absolute()
    if _holds(root, plan):
        return
    draft = root.with_name(f".{root.name}.{uuid.uuid4().hex[:12]}")
    try:
        _lay_out(draft, plan)
        with tqdm(total=len(plan.tasks()), desc=look, unit="img", disable=not progress) as bar:
            for _ in _draw_all(draft, plan, palette):
                bar.update()
        _publish(draft, root, plan)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _holds(root: Path, plan: Plan) -> bool:
    """Whether `root` is this data set; an error if it is anything else but missing or empty."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = None
    if manifest == asdict(plan):
        return True
    raise UserError(f"{root} holds something else ({manifest or 'no minicity set'}); remove it or name another folder")


def _lay_out(draft: Path, plan: Plan) -> None:
    """Makes the folders and the manifest."""
    for folder in {path.parent for split in plan.splits for path in paths(plan.look, split, 0)}:
        (draft / folder).mkdir(parents=True)
    (draft / MANIFEST).write_text(json.dumps(asdict(plan), indent=1) + "\n")


def _draw_all(draft: Path, plan: Plan, palette: Palette | None) -> Iterator[None]:
    """Draws every picture, yielding after each; large sets on all cores."""
    tasks = plan.tasks()
    count = workers.worth_starting(len(tasks))
    draw_one = functools.partial(write_pair, draft, plan, palette)
    try:
        yield from workers.run(draw_one, tasks, count) if count > 1 else map(draw_one, tasks)
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        raise OSError(error.errno, error.strerror, str(draft.parent)) from None


def write_pair(folder: Path, plan: Plan, palette: Palette | None, task: tuple[str, int]) -> None:
    """Draws one picture and its labels to their files; the task is its split and index."""
    split, index = task
    image, label = draw(plan.look, scene_seed(plan.look, split, index, plan.seed), plan.height, plan.width)
    image_path, label_path = paths(plan.look, split, index)
    # The camera's noise does not compress: more effort would cost time and save nothing.
    Image.fromarray(image).save(folder / image_path, compress_level=1)
    label_image = Image.fromarray(label)
    if palette and plan.look == "minicity_game":
        colors = np.zeros((256, 3), np.uint8)
        colors[list(palette)] = list(palette.values())
        label_image.putpalette(colors.tobytes())
    label_image.save(folder / label_path)


def _publish(draft: Path, root: Path, plan: Plan) -> None:
    """Moves the finished folder into place; on one file system a rename happens at once or not at all."""
    try:
        draft.rename(root)
    except OSError:
        if not _holds(root, plan):  # not another process's copy of the same set: the move itself went wrong
            raise
