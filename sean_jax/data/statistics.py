"""Statistics of prepared labels, computed once and stored with them."""

import contextlib
import hashlib
import io

import numpy as np
from PIL import Image

from sean_jax.data.concurrency import cpu_count, ordered_map
from sean_jax.data.prepared import PreparedSet, write_extra


def class_shares(prepared: PreparedSet, label_map: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of each class among all pixels of each example's label, ignored pixels included.

    The first call reads all labels and stores the result as an extra of the prepared set, under a name that depends
    on the label map.

    Args:
      prepared: prepared with labels.
      label_map: uint8 [256], raw label id → class index or IGNORE_LABEL.
      num_classes: classes of the label space.

    Returns:
      float64 [examples, num_classes], 0 to 1; a row sums to 1 less the share of ignored pixels.

    Raises:
      ValueError: the set was prepared without labels.
      UserError: the prepared set is damaged.
    """
    if prepared.labels == "none":
        raise ValueError("class shares need labels; the set was prepared without")
    table = np.asarray(label_map, np.uint8)
    name = f"class_shares_{num_classes}_{hashlib.sha256(table.tobytes()).hexdigest()[:12]}"
    if prepared.has_extra(name):
        return np.array(prepared.extra(name))

    def shares(index: int) -> np.ndarray:
        label = np.asarray(Image.open(io.BytesIO(prepared.read(index).get("label", b""))))
        return shares_of_label(label, num_classes, table)

    found = np.stack(list(ordered_map(shares, range(len(prepared)), cpu_count())))
    with contextlib.suppress(OSError):  # a folder that cannot be written to costs the time again, no more
        write_extra(prepared, name, found)
    return found


def shares_of_label(label: np.ndarray, num_classes: int, label_map: np.ndarray | None = None) -> np.ndarray:
    """The share of each class among all pixels of one label; see :func:`class_shares`.

    Args:
      label: uint8 of any shape.
      label_map: default: the label contains class indices.
    """
    # Raw ids are counted first: 256 counts are quicker to map than all pixels.
    counts = np.zeros(256, np.int64)
    np.add.at(counts, np.arange(256) if label_map is None else label_map, np.bincount(label.ravel(), minlength=256))
    return counts[:num_classes] / label.size


def rare_class_probabilities(shares: np.ndarray, temperature: float, least_share: float = 0.003) -> np.ndarray:
    """Probabilities of examples under rare-class sampling (DAFormer, Hoyer et al., CVPR 2022).

    A class c is drawn with a probability in proportion to exp((1 − f_c) / temperature), f_c its share of all pixels;
    then an example in which it covers at least ``least_share`` (about 3,000 pixels of DAFormer's source images).

    Args:
      shares: [examples, classes], from :func:`class_shares`.
      temperature: small values prefer rare classes more; DAFormer's is 0.01.

    Returns:
      float64 [examples], which sum to 1; equal ones if no class covers enough of any example.
    """
    holds = shares >= least_share
    counts = holds.sum(0)
    logits = np.where(counts > 0, (1 - shares.mean(0)) / temperature, -np.inf)
    if not counts.any():
        return np.full(len(shares), 1 / len(shares))
    classes = np.exp(logits - logits.max())
    return (holds / np.maximum(counts, 1)) @ (classes / classes.sum())


def importance_probabilities(shares: np.ndarray, uniform: float = 0.25) -> np.ndarray:
    """Probabilities of examples under importance sampling (SAC, Araslanov and Roth, CVPR 2021).

    A class is drawn uniformly from those that some example holds, then an example in proportion to the share of that
    class in it.

    Args:
      shares: ``[examples, classes]``, share of each class in each example, as the network predicts it.
      uniform: share of examples that are drawn uniformly instead.

    Returns:
      float64 ``[examples]``, which sum to 1.
    """
    totals = shares.sum(0)
    by_class = (shares[:, totals > 0] / totals[totals > 0]).mean(1)
    return uniform / len(shares) + (1 - uniform) * by_class
