"""Where a data set's files are: the folder that a flag names, or the bundled data set, generated on first use."""

import os
from pathlib import Path

from sean_jax import minicity
from sean_jax.data.concurrency import lock
from sean_jax.data.dataset import Dataset
from sean_jax.errors import UserError


def default_data_dir() -> str:
    """Where prepared sets are kept unless a flag says otherwise: $SEAN_JAX_DATA_DIR or ~/sean_jax_data."""
    return os.path.expanduser(os.environ.get("SEAN_JAX_DATA_DIR") or "~/sean_jax_data")


def resolve_source_dir(
    dataset: Dataset,
    source_dir: str | Path | None,
    data_dir: str | Path,
    height: int,
    width: int,
    flag: str = "--source_dir",
    progress: bool = True,
) -> Path:
    """The folder of a data set's files.

    Args:
      dataset: the data set.
      source_dir: what ``flag`` gave, or None for the data set's own folder.
      data_dir: where generated and prepared data are kept.
      height: of the images to be generated, where the data set is.
      width: of the images to be generated.
      flag: the flag that names the folder, for messages.
      progress: whether generating shows its progress.

    Raises:
      UserError: no folder was given for a data set that is not generated.
    """
    if source_dir:
        return Path(source_dir).expanduser()
    if dataset.folder:
        return Path(dataset.folder)
    if not dataset.generated:
        expected = ", ".join(split.images for split in dataset.splits.values())
        raise UserError(f'{dataset.name} needs {flag}=FOLDER, which holds {expected}; see "Data" in BUILD.md')
    return _generate(dataset, Path(data_dir).expanduser(), height, width, progress)


def _generate(dataset: Dataset, data_dir: Path, height: int, width: int, progress: bool) -> Path:
    look, space = dataset.name, dataset.label_space
    counts: dict[str, int] = minicity.DEFAULT_COUNTS[look]
    numbers = "-".join(f"{split}{count}" for split, count in counts.items())
    root = data_dir / "minicity" / f"{look}-{width}x{height}-{numbers}-drawing{minicity.DRAWING}"
    if not root.is_dir():
        with lock(root.parent / f".{root.name}.lock"):
            if not root.is_dir():  # no other process has drawn it while we waited
                colors = dict(zip(space.classes, space.palette, strict=True))
                palette = {label_id: colors[name] for label_id, name in dataset.label_ids.items()}
                minicity.generate(
                    look, root, height=height, width=width, splits=dict(counts), palette=palette, progress=progress
                )
    return root
