"""The tf.data engine: examples read by index in Python, decoded by TensorFlow's threads."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


@functools.cache
def _tensorflow() -> Any:
    """TensorFlow, quiet and without a GPU, whose memory it would take from JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # speaks up at import; nothing here computes with it
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def elements(
    read: Callable[[int], Mapping[str, bytes]],
    fields: Mapping[str, np.ndarray | None],
    start: int,
    stop: int,
    batch_size: int | None,
    threads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """See :func:`sean_jax.data.pipeline.elements`."""
    tf = _tensorflow()

    def load(place: np.ndarray) -> tuple[bytes, ...]:
        encoded = read(int(place))
        return tuple(encoded[name] for name in fields)

    def decode(place: Any) -> dict[str, Any]:
        encoded = tf.numpy_function(load, [place], [tf.string] * len(fields), stateful=False)
        decoded = {}
        for (name, table), png in zip(fields.items(), encoded, strict=True):
            pixels = tf.io.decode_png(tf.ensure_shape(png, []), channels=3 if table is None else 1)
            decoded[name] = pixels if table is None else pixels[..., 0]
        return decoded

    dataset = tf.data.Dataset.range(start, stop)
    dataset = dataset.map(decode, num_parallel_calls=threads, deterministic=True)
    if batch_size is not None:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    for element in dataset.prefetch(2).as_numpy_iterator():
        # NumPy and not tf.gather, whose 32-bit indices halve the rate of full-size labels.
        yield {
            name: element[name] if table is None else np.take(table, element[name]) for name, table in fields.items()
        }
