"""Helpers for tests of methods: a batch of different examples, parameters of a small network, compiled steps."""

import functools

import builders
import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.methods import METHODS, Method
from sean_jax.methods.sean import Views
from sean_jax.training.augmentation import SourceView
from sean_jax.training.parallel import AXIS, pmap_step, replicate

CLASSES = 4
NETWORK = builders.method("source_only", CLASSES).network
DEVICES = jax.local_devices()


@functools.cache
def params(seed: int = 0):
    """Initial parameters of :data:`NETWORK`, the network of :func:`builders.method`."""
    return jax.tree.map(np.asarray, NETWORK.init_params(jax.random.key(seed)))


@functools.cache
def teacher():
    """Parameters whose attention varies over the image."""
    found = jax.tree.map(lambda x: np.float32(1.1) * x, params())
    kernel = np.asarray(jax.random.normal(jax.random.key(7), found["head"]["attention"]["kernel"].shape))
    return found | {"head": found["head"] | {"attention": {"kernel": kernel}}}


def batch(method: str = "sean", size: int = 32, examples: int = 4) -> dict[str, np.ndarray]:
    """A batch with the fields that ``method`` reads; examples differ, also in their number of labelled pixels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (examples, size, size)).astype(np.uint8)
    for i in range(examples):
        labels[i, : 4 * i] = 255
    images = rng.integers(0, 256, (2, examples, size // 8, size // 8, 3)).repeat(8, 2).repeat(8, 3).astype(np.uint8)
    images[1] //= (1 + np.arange(examples, dtype=np.uint8))[:, None, None, None]
    found = {"source_image": images[0], "source_label": labels}
    if not METHODS[method].READS.target:
        return found
    stored = extras(examples, size)
    wanted = {f"target_{name}": stored[name] for name in METHODS[method].READS.target_extras}
    return found | {"target_image": images[1]} | wanted


def extras(examples: int, size: int) -> dict[str, np.ndarray]:
    """What methods may find beside the prepared target, by name."""
    rng = np.random.default_rng(1)
    superpixels = np.arange(16, dtype=np.uint8).reshape(4, 4).repeat(size // 4, 0).repeat(size // 4, 1)
    superpixel_labels = rng.integers(0, CLASSES, (examples, 20)).astype(np.uint8)  # ids 16 to 19 have no pixels
    superpixel_labels[rng.random(superpixel_labels.shape) < 0.4] = 255
    return {
        "superpixels": np.stack([np.roll(superpixels, 3 * i, 1) for i in range(examples)]),
        "superpixel_labels": superpixel_labels,
        "label_distribution": rng.dirichlet(np.ones(CLASSES), examples).astype(np.float32),
    }


def views(raw: dict[str, np.ndarray]) -> Views:
    """The batch as views without noise; the teacher's target images are slightly brighter."""
    target = jnp.asarray(raw["target_image"], jnp.float32)
    source = SourceView(jnp.asarray(raw["source_image"], jnp.float32), jnp.asarray(raw["source_label"]))
    return Views(source, target, target + 1.0)


def median_attention(images) -> float:
    """A threshold for a mask ratio of about one half, which differs from example to example."""
    attention = np.asarray(_attention(teacher(), images))
    threshold = float(np.median(attention))
    assert len(set((attention > threshold).sum((1, 2)).tolist())) > 1
    return threshold


@jax.jit
def _attention(parameters, images):
    return NETWORK.predict(parameters, images).maps["attention"]


def gradients(method: Method, student, teacher_params, view: Views, devices: int = 1):
    """``method.gradients`` on the view, divided among devices."""
    split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), view)
    return _mapped_gradients(devices)(method, student, teacher_params, split)


@functools.cache
def _mapped_gradients(devices: int):
    def function(method, student, teacher_params, view):
        return method.gradients(student, teacher_params, view)

    return jax.pmap(function, AXIS, in_axes=(None, None, None, 0), out_axes=None, devices=DEVICES[:devices])


def init(method: Method):
    """The state at step 0 of a method on :data:`NETWORK`, from :func:`params` and the class shares of the batch."""
    state = method.init(jax.random.key(1), jax.tree.map(jnp.asarray, params()))
    if not method.READS.source_statistics:
        return state
    labels = batch()["source_label"]
    return method.with_source_shares(state, jnp.asarray((labels[..., None] == np.arange(CLASSES)).mean((1, 2))))


def run(method: Method, raw: dict[str, np.ndarray], *, steps: int = 1, devices: int = 1, state=None):
    """State and metrics after ``steps`` steps on one batch."""
    used = DEVICES[:devices]
    step, metrics = pmap_step(method, used), {}
    state = init(method) if state is None else state
    state, rng = replicate((state, jax.random.key(3)), used)  # as training does; otherwise the step compiles twice
    for _ in range(steps):
        state, metrics = step(state, raw, rng)
    return state, metrics


def relative(a, b) -> float:
    """‖a − b‖ / ‖b‖ over all leaves."""
    pairs = [(np.float64(x), np.float64(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return (sum(((x - y) ** 2).sum() for x, y in pairs) / sum((y**2).sum() for _, y in pairs)) ** 0.5


def same_bits(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
