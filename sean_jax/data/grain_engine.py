"""The Grain engine: reads and decodes examples on Python threads with Pillow, which releases the GIL.

For hosts without TensorFlow: nothing here imports it.
"""

import io
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np
from PIL import Image

from sean_jax.data.fields import Encoded, Field


def elements(
    read: Callable[[int], Mapping[str, Encoded]],
    fields: Mapping[str, Field],
    start: int,
    stop: int,
    batch_size: int | None,
    threads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """See :func:`sean_jax.data.pipeline.elements`."""

    def decode(number: int) -> dict[str, np.ndarray]:
        encoded = read(int(number))
        return {name: _decode(encoded[name], field) for name, field in fields.items()}

    # Prefetching before batching lets the threads share one batch; few elements bound the memory.
    ahead = max(2 * threads, 2 * (batch_size or 1))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(start, stop).map(decode).to_iter_dataset(options)
    if batch_size is not None:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    yield from grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2 if batch_size else 1)


def _decode(encoded: Encoded, field: Field) -> np.ndarray:
    """uint8 [h, w, 3] of an image; uint8 [h, w] of a label, through its table; an array as it is."""
    if not isinstance(encoded, bytes):
        return np.array(encoded)  # read from the disk here, on this thread
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    return np.take(field, pixels) if isinstance(field, np.ndarray) else pixels
