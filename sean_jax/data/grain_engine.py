"""The Grain engine: examples read and decoded on Python threads with Pillow, which lets go of the interpreter.

For hosts without TensorFlow: nothing here imports it.
"""

import io
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np
from PIL import Image


def elements(
    read: Callable[[int], Mapping[str, bytes]],
    fields: Mapping[str, np.ndarray | None],
    start: int,
    stop: int,
    batch_size: int | None,
    threads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """See :func:`sean_jax.data.pipeline.elements`."""

    def decode(place: int) -> dict[str, np.ndarray]:
        encoded = read(int(place))
        return {name: _decode(encoded[name], table) for name, table in fields.items()}

    # Prefetching before batching lets the threads share one batch; few elements bound the memory.
    ahead = max(2 * threads, 2 * (batch_size or 1))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(start, stop).map(decode).to_iter_dataset(options)
    if batch_size is not None:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    yield from grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2 if batch_size else 1)


def _decode(png: bytes, table: np.ndarray | None) -> np.ndarray:
    """uint8 [h, w, 3] of an image; uint8 [h, w] of a label, through its table."""
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    return pixels if table is None else np.take(table, pixels)
