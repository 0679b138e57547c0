"""Evaluation and prediction: logits upsampled to full size, then argmax, all on the device."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sean_jax.models.deeplab import Prediction, Segmenter
from sean_jax.ops.resize import resize_bilinear
from sean_jax.scoring.metrics import confusion_matrix
from sean_jax.training.losses import IGNORE_LABEL
from sean_jax.training.parallel import Devices, pmap_predict


class Example(NamedTuple):
    """One labelled image at the network's input size, with its label at its own size."""

    name: str
    image: np.ndarray  # [h, w, 3] uint8 RGB
    label: np.ndarray  # [H, W] uint8 class index or 255


class FullSizePrediction(NamedTuple):
    """A prediction at the size asked for."""

    classes: jax.Array  # [b, H, W] uint8 class index
    attention: jax.Array  # [b, H, W] float32 in (0, 1)


def predict(network: Segmenter, params: Any, images: jax.Array, size: tuple[int, int]) -> FullSizePrediction:
    """Logits upsampled bilinearly (corners not aligned) to ``size`` (height, width), then argmax.

    From the network's resolution to the final one in one step, as the authors evaluate.
    """
    return at_size(network.predict(params, images), size)


def at_size(prediction: Prediction, size: tuple[int, int]) -> FullSizePrediction:
    """The part of :func:`predict` that depends on the size wanted, which is compiled anew for each."""
    logits = resize_bilinear(prediction.logits, size)
    attention = resize_bilinear(prediction.attention[..., None], size)[..., 0]
    return FullSizePrediction(jnp.argmax(logits, -1).astype(jnp.uint8), attention)


def make_evaluator(
    network: Segmenter, devices: Devices, batch_size: int
) -> Callable[[Any, Iterable[Example]], np.ndarray]:
    """``(params, examples) → confusion matrix``, int64 ``[classes, classes]``, over all examples of all hosts.

    Args:
      devices: this host's, among which each batch of its examples is divided.
      batch_size: images per device.
    """

    def count(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        size = batch["label"].shape[1:3]
        classes = predict(network, params, batch["image"], (size[0], size[1])).classes
        return confusion_matrix(classes, batch["label"], network.num_classes)

    count_on_devices = pmap_predict(count, devices)
    local = sum(d.process_index == jax.process_index() for d in devices)

    def evaluate(params: Any, examples: Iterable[Example]) -> np.ndarray:
        total = np.zeros((network.num_classes, network.num_classes), np.int64)
        pending = None
        for batch in _batches(examples, local * batch_size):
            counted = count_on_devices(params, batch)
            # The next batch is under way before the last one's matrix is fetched.
            if pending is not None:
                total += _local_sum(pending)
            pending = counted
        if pending is not None:
            total += _local_sum(pending)
        if jax.process_count() > 1:
            halves = np.stack([total >> 30, total & (2**30 - 1)]).astype(np.int32)  # 64 bits do not travel
            high, low = multihost_utils.process_allgather(halves).astype(np.int64).sum(0)
            total = (high << 30) + low
        return total

    return evaluate


def _local_sum(per_device: jax.Array) -> np.ndarray:
    shards = [np.asarray(shard.data, np.int64) for shard in per_device.addressable_shards]
    return np.sum([shard.reshape(shard.shape[-2:]) for shard in shards], axis=0)


def _batches(examples: Iterable[Example], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of examples whose labels have one size; the last of a size is filled up with ignored pixels."""
    for _, same_size in itertools.groupby(examples, lambda example: (example.image.shape, example.label.shape)):
        while group := list(itertools.islice(same_size, size)):
            image = np.stack([example.image for example in group])
            label = np.stack([example.label for example in group])
            if len(group) < size:  # a whole batch is not copied once more
                missing = ((0, size - len(group)), (0, 0), (0, 0))
                image = np.pad(image, (*missing, (0, 0)))
                label = np.pad(label, missing, constant_values=IGNORE_LABEL)
            yield {"image": image, "label": label}
