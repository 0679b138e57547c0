"""The tf.data engine: reads examples by index in Python and decodes them on TensorFlow's threads."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from sean_jax.data.fields import ArrayField, Encoded, Field


@functools.cache
def _tensorflow() -> Any:
    """TensorFlow, quiet and without a GPU, whose memory it would take from JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # logs at import; nothing here computes with it
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def elements(
    read: Callable[[int], Mapping[str, Encoded]],
    fields: Mapping[str, Field],
    start: int,
    stop: int,
    batch_size: int | None,
    threads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """See :func:`sean_jax.data.pipeline.elements`."""
    tf = _tensorflow()

    types = [tf.as_dtype(field.dtype) if isinstance(field, ArrayField) else tf.string for field in fields.values()]

    def load(number: np.ndarray) -> tuple[Encoded, ...]:
        encoded = read(int(number))
        return tuple(encoded[name] for name in fields)

    def decode(number: Any) -> dict[str, Any]:
        encoded = tf.numpy_function(load, [number], types, stateful=False)
        decoded = {}
        for (name, field), value in zip(fields.items(), encoded, strict=True):
            if isinstance(field, ArrayField):
                decoded[name] = tf.ensure_shape(value, field.shape)
                continue
            pixels = tf.io.decode_png(tf.ensure_shape(value, []), channels=3 if field is None else 1)
            decoded[name] = pixels if field is None else pixels[..., 0]
        return decoded

    dataset = tf.data.Dataset.range(start, stop)
    dataset = dataset.map(decode, num_parallel_calls=threads, deterministic=True)
    if batch_size is not None:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    for element in dataset.prefetch(2).as_numpy_iterator():
        # NumPy and not tf.gather, whose 32-bit indices halve the rate of full-size labels.
        yield {
            name: np.take(field, element[name]) if isinstance(field, np.ndarray) else element[name]
            for name, field in fields.items()
        }
