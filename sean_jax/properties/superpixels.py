"""Superpixels of an image: their maps, labels and neighbours."""

import numpy as np

from sean_jax.data.label_spaces import IGNORE_LABEL


def find_superpixels(image: np.ndarray, count: int) -> np.ndarray:
    """SLIC superpixels of an image (Achanta et al., PAMI 2012) in Lab colour.

    Args:
      image: uint8 ``[H, W, 3]``, RGB.
      count: how many, about; a small image gets fewer.

    Returns:
      ids from 0 without gaps, below ``2 * count``, ``[H, W]`` of the smallest unsigned type that holds ``2 * count``.
    """
    from skimage.segmentation import slic

    ids = slic(image, n_segments=count, compactness=10, sigma=0, start_label=0, channel_axis=-1)
    # Those below half the nominal area are merged, so there should not be more; if there are, the last ones are one.
    return np.minimum(ids, 2 * count - 1).astype(np.min_scalar_type(2 * count))


def centroids(superpixels: np.ndarray) -> np.ndarray:
    """The mean row and column of each superpixel, float64 ``[count, 2]``."""
    ids, areas = superpixels.ravel(), np.bincount(superpixels.ravel())
    return np.stack([np.bincount(ids, weights=axis.ravel()) / areas for axis in np.indices(superpixels.shape)], -1)


def majority_labels(superpixels: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """The most frequent class of each superpixel, uint8 ``[count]``; ``IGNORE_LABEL`` if half of it has no class.

    Args:
      superpixels: ids ``[H, W]``.
      label: ``[H, W]``, class index or ``IGNORE_LABEL``.
    """
    labelled, areas = label != IGNORE_LABEL, np.bincount(superpixels.ravel())
    pairs = superpixels[labelled].astype(np.int64) * num_classes + label[labelled]
    counts = np.bincount(pairs, minlength=len(areas) * num_classes).reshape(len(areas), num_classes)
    return np.where(2 * counts.sum(1) > areas, counts.argmax(1), IGNORE_LABEL).astype(np.uint8)


def neighbours(centers: np.ndarray) -> np.ndarray:
    """The superpixels around each one: the nearest to the left and to the right, the two nearest above and below.

    A superpixel lies above another if its centre is in the quadrant between the diagonals upwards; likewise for the
    other sides. Where a side has too few, the superpixel stands for itself.

    Args:
      centers: row and column of each superpixel's centre, ``[count, 2]``.

    Returns:
      ids, int64 ``[count, 6]``: left, right, above, above, below, below.
    """
    rows, columns = (centers[None] - centers[:, None]).transpose(2, 0, 1)  # [of, to]
    distances = np.hypot(rows, columns)
    own = np.arange(len(centers))
    sideways = abs(columns) >= abs(rows)
    sides = (sideways & (columns < 0), sideways & (columns > 0), ~sideways & (rows < 0), ~sideways & (rows > 0))
    found = []
    for side, wanted in zip(sides, (1, 1, 2, 2), strict=True):
        away = np.where(side, distances, np.inf)
        for nearest in np.argsort(away, axis=1, kind="stable").T[:wanted]:
            found.append(np.where(np.isfinite(away[own, nearest]), nearest, own))
        found += [own] * (wanted - len(centers))  # of an image with fewer superpixels than wanted
    return np.stack(found, -1)


def with_neighbours(scores: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Each superpixel's scores beside those of its six :func:`neighbours`: ``[count, c]`` → ``[count, 7 c]``."""
    around = scores[neighbours(centers)].reshape(len(scores), -1)
    return np.concatenate([scores, around], axis=1)
