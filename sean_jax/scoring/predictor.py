"""Evaluation and prediction: logits upsampled to full size, then argmax, all on the device."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from sean_jax.data import image_files
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.errors import UserError
from sean_jax.experiment import Experiment
from sean_jax.models import Network, Prediction
from sean_jax.models.network import MIN_SIZE
from sean_jax.ops.resize import resize_bilinear, resize_map
from sean_jax.scoring.confusion import confusion_matrix
from sean_jax.training.parallel import Devices, pmap_predict, replicate, shard

LARGEST = 2**27  # logits of a batch at full size that are computed at once: 512 MB


class Example(NamedTuple):
    """One labelled image at the network's input size, with its label at its own size."""

    name: str
    image: np.ndarray  # [h, w, 3] uint8 RGB
    label: np.ndarray  # [H, W] uint8 class index or 255


class FullSizePrediction(NamedTuple):
    """A prediction at the requested size."""

    classes: jax.Array  # [b, H, W] uint8 class index
    maps: dict[str, jax.Array]  # the network's further maps, [b, H, W] float32 in [0, 1]


class Segmentation(NamedTuple):
    """The prediction for one image."""

    classes: np.ndarray  # [H, W] uint8 class index
    maps: dict[str, np.ndarray]  # such as "attention": [H, W] float32 in [0, 1]


def predict(network: Network, params: Any, images: jax.Array, size: tuple[int, int]) -> FullSizePrediction:
    """Upsamples the logits bilinearly (corners not aligned) to ``size`` (height, width), then takes the argmax.

    The logits go from the network's resolution to ``size`` in one step, as in the authors' evaluation.
    """
    return at_size(network.predict(params, images), size)


def at_size(prediction: Prediction, size: tuple[int, int]) -> FullSizePrediction:
    """The part of :func:`predict` that depends on ``size``: each size is compiled separately."""
    maps = {name: resize_map(x, size) for name, x in prediction.maps.items()}
    if prediction.logits.shape[-1] * size[0] * size[1] > LARGEST:
        return FullSizePrediction(_classes_in_strips(prediction.logits, size), maps)
    logits = resize_bilinear(prediction.logits, size)
    return FullSizePrediction(jnp.argmax(logits, -1).astype(jnp.uint8), maps)


def _classes_in_strips(logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The classes at full size, strip by strip of rows: all logits of a large photograph need gigabytes."""
    _, height, _, channels = logits.shape
    rows = max(1, LARGEST // (8 * channels * size[1]))
    strips = -(-size[0] // rows)
    # Each output row's weights of the input rows, as for the whole: what resizing makes of the unit vectors.
    weights = resize_bilinear(jnp.eye(height)[None, :, :, None], (size[0], height))[0, :, :, 0]
    weights = jnp.pad(weights, ((0, strips * rows - size[0]), (0, 0))).reshape(strips, rows, height)

    def classes(row_weights: jax.Array) -> jax.Array:
        strip = jnp.einsum("rh,bhwc->brwc", row_weights, logits, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmax(resize_bilinear(strip, (rows, size[1])), -1).astype(jnp.uint8)

    found = jax.lax.map(classes, weights)  # [strips, b, rows, W]
    return jnp.moveaxis(found, 0, 1).reshape(logits.shape[0], strips * rows, size[1])[:, : size[0]]


class Predictor:
    """Segments images of any size with one network, as evaluation does.

    An image is resized to the size that the network was trained at (bicubic) and the logits are upsampled to the
    image's own size. With ``native_size`` the network sees the image at its own size instead.
    """

    def __init__(self, experiment: Experiment, params: Any, *, native_size: bool = False):
        self.label_space = experiment.label_space
        self._config, self._params, self._native_size = experiment.config, params, native_size
        # Two programs, so that images of many sizes do not compile the network for each.
        self._apply, self._enlarge = jax.jit(experiment.network().predict), jax.jit(at_size, static_argnums=1)

    def __call__(self, image: Image.Image | np.ndarray, size: tuple[int, int] | None = None) -> Segmentation:
        """Classes and maps of an image.

        Args:
          image: uint8 RGB ``[H, W, 3]``, or a Pillow image of any mode, which is turned as its camera says.
          size: (height, width) of the result; None for the image's own.

        Raises:
          UserError: an array of another shape or type, an image whose values have no known range, or one that is
            too small.
        """
        image = _to_rgb(image)
        at = image.size if self._native_size else (self._config.width, self._config.height)
        if min(at) < MIN_SIZE:
            raise UserError(f"the image is {at[0]}x{at[1]} pixels; expected at least {MIN_SIZE}x{MIN_SIZE}")
        inputs = np.asarray(image.resize(at, Image.Resampling.BICUBIC))
        prediction = self._apply(self._params, inputs[None])
        found = jax.device_get(self._enlarge(prediction, size or (image.height, image.width)))
        return Segmentation(found.classes[0], {name: x[0] for name, x in found.maps.items()})


def _to_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        try:
            return image_files.to_rgb(image)
        except image_files.BadFileError:
            raise UserError(f"the Pillow image is of mode {image.mode}; expected 8 or 16 bits a channel") from None
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UserError(
            f"the image is an array of {array.dtype} {list(array.shape)}; expected uint8 [height, width, 3], RGB"
        )
    return Image.fromarray(array)


def make_evaluator(
    network: Network, devices: Devices, batch_size: int
) -> Callable[[Mapping[str, Any], Iterable[Example]], dict[str, np.ndarray]]:
    """``(params by name, examples) → confusion matrix by name``, each int64 ``[classes, classes]``.

    Every example is read and copied to a device once, whatever the number of networks. The matrices are over the
    examples of all hosts; each host passes its own share.

    Args:
      devices: this host's; every one of them takes ``batch_size`` images of each batch.
      batch_size: images per device.
    """
    count_on_devices = _counter(network, tuple(devices))

    def evaluate(networks: Mapping[str, Any], examples: Iterable[Example]) -> dict[str, np.ndarray]:
        params = {name: replicate(tree, devices) for name, tree in networks.items()}
        totals = {name: np.zeros((network.num_classes, network.num_classes), np.int64) for name in networks}

        def add(counted: dict[str, jax.Array]) -> None:
            for name, per_device in counted.items():
                totals[name] += np.asarray(per_device, np.int64).sum(0)

        pending: dict[str, jax.Array] = {}
        for batch in _batches(examples, len(devices) * batch_size):
            on_devices = shard(batch, devices)
            counted = {name: count_on_devices(tree, on_devices) for name, tree in params.items()}
            add(pending)  # the devices are busy with this batch while the counts of the last one are fetched
            pending = counted
        add(pending)
        return {name: _sum_over_hosts(total) for name, total in totals.items()}

    return evaluate


@functools.cache  # so that the runs of a sweep, in one process, share the compiled program
def _counter(network: Network, devices: tuple[Any, ...]) -> Callable[..., Any]:
    def count(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        size = batch["label"].shape[1:3]
        classes = predict(network, params, batch["image"], (size[0], size[1])).classes
        return confusion_matrix(classes, batch["label"], network.num_classes)

    return pmap_predict(count, list(devices))


def _sum_over_hosts(total: np.ndarray) -> np.ndarray:
    if jax.process_count() == 1:
        return total
    return from_halves(multihost_utils.process_allgather(to_halves(total)))


def to_halves(counts: np.ndarray) -> np.ndarray:
    """Counts below 2⁶¹ as int32 ``[2, ...]``, multiples of 2³⁰ and the rest: JAX does not send 64-bit integers."""
    return np.stack([counts >> 30, counts & (2**30 - 1)]).astype(np.int32)


def from_halves(halves: np.ndarray) -> np.ndarray:
    """The sum over hosts, int64, of what each made by :func:`to_halves`; ``halves``: ``[hosts, 2, ...]``."""
    high, low = halves.astype(np.int64).sum(0)
    return (high << 30) + low


def _batches(examples: Iterable[Example], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of consecutive examples of one size; a batch that is not full is padded with ignored pixels."""
    for _, same_size in itertools.groupby(examples, lambda example: (example.image.shape, example.label.shape)):
        while group := list(itertools.islice(same_size, size)):
            image = np.stack([example.image for example in group])
            label = np.stack([example.label for example in group])
            if len(group) < size:  # np.pad would copy a full batch
                missing = ((0, size - len(group)), (0, 0), (0, 0))
                image = np.pad(image, (*missing, (0, 0)))
                label = np.pad(label, missing, constant_values=IGNORE_LABEL)
            yield {"image": image, "label": label}
