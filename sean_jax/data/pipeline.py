"""From prepared sets to batches, in an order that is a function of the seed and the epoch alone.

Example number ``p`` of a domain, counted over the whole run, is number ``p % n`` of epoch ``p // n``, and each epoch
has its own permutation of the domain's ``n`` examples. With probabilities, each example is drawn by itself. So the
batch of any step is known without those before it: a run resumes at any step at once, and each host finds its share of
a batch by itself.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from sean_jax.data import grain_engine, tf_engine
from sean_jax.data.concurrency import cpu_count
from sean_jax.data.fields import ArrayField, Encoded, Field
from sean_jax.data.prepared import Extra, PreparedSet
from sean_jax.errors import UserError

_ENGINES = {"tf_data": tf_engine.elements, "grain": grain_engine.elements}
LOADERS = tuple(_ENGINES)
SOURCE_DOMAIN, TARGET_DOMAIN = 0, 1


@functools.lru_cache(maxsize=16)
def epoch_order(seed: int, domain: int, epoch: int, length: int) -> np.ndarray:
    """The order of a domain's examples in an epoch: a permutation of 0 … length - 1, int64, read-only.

    Args:
      seed: of the run, not negative.
      domain: :data:`SOURCE_DOMAIN` or :data:`TARGET_DOMAIN`.
      epoch: counted from 0.
      length: number of examples.
    """
    order = np.random.default_rng([seed, domain, epoch]).permutation(length)
    order.setflags(write=False)
    return order


def example_at(position: int, seed: int, domain: int, length: int) -> int:
    """The index of the example that is number ``position`` (from 0, over all epochs) of a domain in a run."""
    epoch, index = divmod(position, length)
    return int(epoch_order(seed, domain, epoch, length)[index])


def drawn_example(position: int, seed: int, domain: int, cumulative: np.ndarray) -> int:
    """The index of example number ``position`` of a domain whose examples are drawn, with replacement.

    Args:
      cumulative: cumulative sums of the examples' probabilities, float64 ``[length]``; the last one is 1.
    """
    return int(np.searchsorted(cumulative, np.random.default_rng([seed, domain, position]).random(), side="right"))


def elements(
    loader: str,
    read: Callable[[int], Mapping[str, Encoded]],
    fields: Mapping[str, Field],
    start: int,
    stop: int,
    batch_size: int | None,
) -> Iterator[dict[str, np.ndarray]]:
    """Decodes elements ``start`` to ``stop`` in order, on several threads and ahead of the consumer.

    Args:
      loader: the engine, ``tf_data`` or ``grain``.
      read: number of an element → its fields, PNGs or arrays; called on several threads.
      fields: the fields wanted, and what each is.
      start: first element.
      stop: last element, excluded.
      batch_size: how many elements to stack (a remainder is dropped), or None for single ones.

    Yields:
      by field, uint8 [..., h, w, 3] for images, uint8 [..., h, w] for labels, and arrays as they are stored. The arrays
      may be read-only.
    """
    if loader not in _ENGINES:
        raise UserError(f"loader is {loader!r}; expected one of {', '.join(LOADERS)}")
    failures: list[str] = []

    def noted(number: int) -> Mapping[str, Encoded]:
        try:
            return read(number)
        except UserError as error:
            failures.append(str(error))  # both engines wrap what is raised on their threads
            raise

    try:
        yield from _ENGINES[loader](noted, fields, start, stop, batch_size, threads=cpu_count())
    except ImportError as error:
        raise _no_tensorflow(error) from None
    except Exception:
        if failures:
            raise UserError(failures[0]) from None
        raise


def check_loader(loader: str) -> None:
    """Raises UserError if the engine needs TensorFlow and it is not installed; does not import it."""
    if loader == "tf_data" and importlib.util.find_spec("tensorflow") is None:
        raise _no_tensorflow(ImportError("No module named 'tensorflow'"))


def _no_tensorflow(error: ImportError) -> UserError:
    return UserError(f"the loader cannot be imported ({error}); install tensorflow-cpu or use --loader=grain")


def training_batches(
    source: PreparedSet,
    source_map: np.ndarray,
    target: PreparedSet | None,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    source_probabilities: np.ndarray | None = None,
    target_probabilities: np.ndarray | None = None,
    target_extras: Mapping[str, str] = MappingProxyType({}),
    loader: str = "tf_data",
    host_index: int = 0,
    host_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps ``start_step`` to ``stop_step`` - 1.

    Args:
      source: prepared with labels at the images' size.
      source_map: uint8 [256], raw label id → class index or IGNORE_LABEL.
      target: prepared without labels, or None for methods that do not read a target.
      batch_size: examples a domain in a step, over all hosts.
      seed: of the run.
      start_step: first step.
      stop_step: last step, excluded.
      source_probabilities: [examples], of drawing each source example; None: each once an epoch, in random order.
      target_probabilities: likewise, of the target.
      target_extras: the target's extras that are wanted with its images: name in the batch → name of the stored extra.
      loader: ``tf_data`` or ``grain``; both give the same batches.
      host_index: which of the hosts this is; it gets the host_index-th run of batch_size / host_count examples.
      host_count: how many hosts there are.

    Yields:
      ``source_image`` uint8 [b, h, w, 3] RGB, ``source_label`` uint8 [b, h, w], and with a target
      ``target_image`` uint8 [b, h, w, 3] and ``target_NAME`` [b, ...] of each extra, with the stored dtype; b is
      batch_size / host_count.

    Raises:
      ValueError: a target with labels, a source without, sizes that differ, hosts that do not divide the batch,
        extras without a target.
      UserError: a target without one of the extras.
    """
    _check(source, target, batch_size, host_index, host_count)
    share = batch_size // host_count
    fields: dict[str, Field] = {"source_image": None, "source_label": np.asarray(source_map, np.uint8)}
    extras: dict[str, Extra] = {}
    if target is not None:
        fields["target_image"] = None
        extras = {f"target_{name}": target.extra(stored) for name, stored in target_extras.items()}
        fields |= {name: ArrayField(extra.dtype, extra.shape[1:]) for name, extra in extras.items()}
    elif target_extras:
        raise ValueError(f"extras {', '.join(target_extras)} of a target, and no target")

    source_index = _order(seed, SOURCE_DOMAIN, len(source), source_probabilities)
    target_index = _order(seed, TARGET_DOMAIN, len(target) if target is not None else 0, target_probabilities)

    def read(number: int) -> dict[str, Encoded]:
        step, index_in_share = divmod(number, share)
        position = step * batch_size + host_index * share + index_in_share
        record = source.read(source_index(position))
        encoded: dict[str, Encoded] = {"source_image": record["image"], "source_label": record.get("label", b"")}
        if target is not None:
            index = target_index(position)
            encoded["target_image"] = target.read(index)["image"]
            encoded |= {name: extra[index] for name, extra in extras.items()}
        return encoded

    return elements(loader, read, fields, start_step * share, stop_step * share, share)


def _order(seed: int, domain: int, length: int, probabilities: np.ndarray | None) -> Callable[[int], int]:
    """The index of a domain's example by its position in a run."""
    if probabilities is None:
        return functools.partial(example_at, seed=seed, domain=domain, length=length)
    cumulative = np.cumsum(np.float64(probabilities))
    cumulative /= cumulative[-1]
    return functools.partial(drawn_example, seed=seed, domain=domain, cumulative=cumulative)


def _check(source: PreparedSet, target: PreparedSet | None, batch_size: int, host_index: int, host_count: int) -> None:
    if source.labels != "resized":
        raise ValueError(f"the source was prepared with labels {source.labels!r}; expected 'resized'")
    if target is not None and target.labels != "none":
        raise ValueError(f"the target was prepared with labels {target.labels!r}; training must not see them: 'none'")
    if target is not None and (target.height, target.width) != (source.height, source.width):
        raise ValueError(
            f"the source is {source.width}x{source.height} and the target {target.width}x{target.height}; "
            "expected equal sizes"
        )
    if batch_size < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise ValueError(f"batch of {batch_size} on host {host_index} of {host_count}; hosts must divide the batch")


def evaluation_examples(
    prepared: PreparedSet, label_map: np.ndarray, *, loader: str = "tf_data", indices: Sequence[int] | None = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Labelled examples, all of them in the order of their names unless ``indices`` says which.

    Args:
      prepared: prepared with labels, at their own size or resized.
      label_map: uint8 [256], raw label id → class index or IGNORE_LABEL.
      loader: ``tf_data`` or ``grain``.
      indices: of the examples wanted, in the order of names; None for all. Several hosts take shares by it.

    Yields:
      name, image uint8 [h, w, 3] and label uint8 [H, W]; sizes of labels may differ from one to the next.

    Raises:
      ValueError: the set was prepared without labels.
    """
    if prepared.labels == "none":
        raise ValueError("evaluation needs labels; the set was prepared without")
    indices = range(len(prepared)) if indices is None else indices

    def read(number: int) -> dict[str, Encoded]:
        record = prepared.read(indices[number])
        return {"image": record["image"], "label": record.get("label", b"")}

    fields = {"image": None, "label": np.asarray(label_map, np.uint8)}
    names = [prepared.names[index] for index in indices]
    return _named(names, elements(loader, read, fields, 0, len(indices), None))


def _named(names: list[str], decoded: Iterator[dict[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, example in zip(names, decoded, strict=True):
        yield name, example["image"], example["label"]
