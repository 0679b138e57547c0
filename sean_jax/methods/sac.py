"""SAC: self-supervised augmentation consistency (Araslanov and Roth, CVPR 2021; code: visinf/da-sac).

The teacher predicts several views of each target image and averages its predictions where the views overlap. The
student learns these pseudo-labels from the same views with changed colours; rare classes get lower thresholds and
larger weights.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.methods.base import (
    Batch,
    Metrics,
    Params,
    TrainState,
    concatenate_over_parts,
    sum_over_devices,
    sum_over_parts,
)
from sean_jax.methods.self_ensembling import SelfEnsembling, SelfEnsemblingSettings
from sean_jax.ops.resize import resize_bilinear
from sean_jax.settings import redefault, setting, settings
from sean_jax.training.augmentation import SourceView, augment_source, crop_and_mirror_target
from sean_jax.training.geometry import View, put_back, random_view, take, take_label, whole_view
from sean_jax.training.losses import count_labelled, segmentation_loss
from sean_jax.training.photometric import PhotometricSettings, photometric
from sean_jax.training.randomness import example_keys


@settings
class SACSettings(PhotometricSettings, SelfEnsemblingSettings):
    """The published values, but for the teacher, which the authors update every 100 steps and this step always."""

    noise_std: float = redefault(SelfEnsemblingSettings, "noise_std", 0.0)
    random_flip: bool = redefault(SelfEnsemblingSettings, "random_flip", True)
    ema_ramp: bool = redefault(SelfEnsemblingSettings, "ema_ramp", True)
    color_jitter: float = redefault(PhotometricSettings, "color_jitter", 0.4)
    grey_probability: float = redefault(PhotometricSettings, "grey_probability", 0.2)
    views: int = setting(4, "views of each target image, the image itself among them", least=2)
    crop_scale: float = setting(0.5, "smallest side of random crops, as a fraction of the image's", least=0.1, most=1)
    prior_decay: float = setting(0.99, "decay of the running confidence of each class", least=0, most=1)
    prior_start: float = setting(1e-3, "running confidence of a class that was not predicted yet (beta)", least=1e-8)
    relative_threshold: float = setting(
        0.75, "pseudo-labels need this fraction of their class's largest confidence in the image", least=0, most=1
    )
    least_threshold: float = setting(0.1, "smallest threshold of a pseudo-label", least=0, most=1)
    focal_power: float = setting(3.0, "power of one minus the running confidence in a class's weight", least=0)
    target_weight: float = setting(2.0, "weight of the loss on the target", least=0)


class Taught(NamedTuple):
    """What the teacher says about the views of each target image; ``[b, views, ...]``."""

    image: jax.Array  # [..., H, W, 3] float32, RGB, 0–255 scale
    label: jax.Array  # [..., H, W] uint8, the most probable class
    confidence: jax.Array  # [..., H, W] float32, its probability
    peak: jax.Array  # [..., classes] float32, each class's largest probability
    mean: jax.Array  # [..., classes] float32, each class's mean probability


class SAC(SelfEnsembling):
    """Cross-entropy on crops of the source, and on views of the target with the teacher's averaged pseudo-labels."""

    Settings: ClassVar[type] = SACSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "optimizer": "sgd",
            "learning_rate": 2.5e-4,
            "weight_decay": 5e-4,
            "batch_size": 8,
            "ema_decay": 0.9999,  # 0.99 every 100 steps
            "ema_ramp": False,
        },
    }

    def init(self, key: jax.Array, params: Params) -> TrainState:
        classes = self.network.num_classes
        prior = jnp.full(classes, self.settings.prior_start, jnp.float32)
        state = super().init(key, params)
        return state.replace(memory=state.memory | {"prior": prior, "seen": jnp.zeros(classes, bool)})

    def step(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
        examples = batch["target_image"].shape[0]
        source = self.crop(augment_source(self.settings, batch, state.step, rng), state.step, rng)
        state = self.count_classes(state, source.label)
        target = crop_and_mirror_target(self.settings, batch, state.step, rng).astype(jnp.float32)
        keys = example_keys(rng, "views", state.step, examples)
        taught = concatenate_over_parts(
            lambda part: self.teach(state.params["teacher"], *part), (keys, target), self.accumulate_steps
        )
        state = state.replace(memory=state.memory | self.update_prior(state.memory, taught.mean))
        label, weight = self.pseudo_labels(taught, state.memory["prior"])
        views = self.student_views(taught.image, label, state.step, rng)
        state, metrics = self.update(state, source, views, weight)
        kept = sum_over_devices(jnp.sum(label != IGNORE_LABEL, dtype=jnp.int32).astype(jnp.float32))
        pixels = sum_over_devices(jnp.float32(label.size))
        return state, metrics | {"train/kept_pixels": kept / pixels}

    def crop(self, source: SourceView, step: jax.Array, rng: jax.Array) -> SourceView:
        """A random crop of each source image and its label, enlarged to the image's size."""
        keys = example_keys(rng, "source_view", step, source.image.shape[0])
        views = jax.vmap(lambda key: random_view(key, self.settings.crop_scale, flip=False))(keys)
        return source._replace(
            image=jax.vmap(take)(views, source.image), label=jax.vmap(take_label)(views, source.label)
        )

    def teach(self, teacher: Params, keys: jax.Array, target: jax.Array) -> Taught:
        """The teacher's averaged predictions of the views of target images ``[b, H, W, 3]``, without gradient."""
        views = jax.vmap(self.draw_views)(keys)
        images = jax.vmap(jax.vmap(take, (0, None)))(views, target)
        logits = self.network.predict(teacher, images.reshape(-1, *target.shape[1:])).logits
        probabilities = jax.nn.softmax(resize_bilinear(logits, (target.shape[1], target.shape[2])))
        averaged = jax.vmap(average)(views, probabilities.reshape(*images.shape[:-1], -1))
        taught = Taught(
            images,
            jnp.argmax(averaged, -1).astype(jnp.uint8),
            jnp.max(averaged, -1),
            jnp.max(averaged, (2, 3)),
            jnp.mean(averaged, (2, 3)),
        )
        return lax.stop_gradient(taught)

    def draw_views(self, key: jax.Array) -> View:
        """The image itself, then random views; the fields have a leading dimension."""
        keys = jax.random.split(key, self.settings.views - 1)
        others = jax.vmap(lambda key: random_view(key, self.settings.crop_scale))(keys)
        return jax.tree.map(lambda whole, other: jnp.concatenate([whole[None], other]), whole_view(), others)

    def update_prior(self, memory: dict[str, jax.Array], mean: jax.Array) -> dict[str, jax.Array]:
        """The running confidence of each class; the first value that is not negligible replaces the initial one."""
        total, count = sum_over_devices((mean.sum((0, 1)), jnp.float32(mean.shape[0] * mean.shape[1])))
        found = total / count
        decay = self.settings.prior_decay
        averaged = decay * memory["prior"] + (1 - decay) * found
        first = ~memory["seen"] & (found > 1e-8)
        return {"prior": jnp.where(first, found, averaged), "seen": memory["seen"] | first}

    def pseudo_labels(self, taught: Taught, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Labels ``[b, views, H, W]``, ignored below their class's threshold, and the weights of the pixels.

        The threshold is a fraction of the class's largest confidence in the view, lower for rare classes.
        """
        s = self.settings
        certainty = 1 - jnp.exp(-prior / s.prior_start)
        threshold = s.relative_threshold * taught.peak * certainty.reshape(1, 1, -1)
        threshold = jnp.maximum(threshold, s.least_threshold)
        at_pixels = jax.vmap(jax.vmap(lambda threshold, label: threshold[label]))(threshold, taught.label)
        label = jnp.where(taught.confidence >= at_pixels, taught.label, jnp.uint8(IGNORE_LABEL))
        return label, taught.confidence * ((1 - prior) ** s.focal_power)[taught.label]

    def student_views(self, images: jax.Array, label: jax.Array, step: jax.Array, rng: jax.Array) -> SourceView:
        """The views with changed colours, ``[b, views, ...]``; one key for dropout for each example."""
        examples, views = images.shape[:2]
        keys = _split(example_keys(rng, "photometric", step, examples), views)
        changed = jax.vmap(lambda keys, images: photometric(self.settings, keys, images))(keys, images)
        return SourceView(changed, label, example_keys(rng, "target_dropout", step, examples))

    def update(
        self, state: TrainState, source: SourceView, target: SourceView, weight: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """One step on the source, and on views ``[b, views, ...]`` of the target with weights of their pixels."""
        labelled, pixels = sum_over_devices((count_labelled(source.label), jnp.float32(weight.size)))
        split, adjustment = source.image.shape[0] // self.accumulate_steps, self.adjustment(state)

        def loss_fn(
            student: Params, source: SourceView, target: SourceView, weight: jax.Array
        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            target = target._replace(dropout=_split(target.dropout, self.settings.views))
            views, weight = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (target, weight))
            images, keys = (
                jnp.concatenate([getattr(v, name) for v in (source, views)]) for name in ("image", "dropout")
            )
            logits = self.network.predict(student, images, keys).logits
            segmentation = segmentation_loss(logits[:split], source.label, adjustment=adjustment) / labelled.clip(1)
            consistency = segmentation_loss(logits[split:], views.label, weight) / pixels
            return segmentation + self.settings.target_weight * consistency, (segmentation, consistency)

        summed = sum_over_parts(
            lambda part: jax.grad(loss_fn, has_aux=True)(state.params["student"], *part),
            (source, target, weight),
            self.accumulate_steps,
        )
        gradients, (segmentation, consistency) = sum_over_devices(summed)
        state, metrics = self.apply_gradients(state, gradients)
        loss = segmentation + self.settings.target_weight * consistency
        losses = {"train/loss_segmentation": segmentation, "train/loss_target": consistency}
        return state, {"train/loss": loss, **losses, **metrics}


def _split(keys: jax.Array | None, views: int) -> jax.Array:
    """One key for each view of each example: ``[b]`` → ``[b, views]``."""
    assert keys is not None
    return jax.vmap(lambda key: jax.random.split(key, views))(keys)


def average(views: View, probabilities: jax.Array) -> jax.Array:
    """Averages the predictions of an image's views ``[views, H, W, classes]`` where they overlap, seen from each."""
    back, inside = jax.vmap(put_back)(views, probabilities)
    mean = back.sum(0) / inside.sum(0)  # at least 1, since the whole image is one of the views
    return jax.vmap(take, (0, None))(views, mean)
