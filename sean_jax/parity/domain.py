"""FCNs in the Wild and CCA: their network, the losses of both alignments, and the category constraints."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sean_jax.config import from_flat_settings
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.methods.cca import CCA
from sean_jax.methods.domain_adversarial import DomainAdversarial, DomainView, half_of_both
from sean_jax.methods.fcns_in_the_wild import FCNsInTheWild
from sean_jax.models import Params
from sean_jax.models.dilated import Dilated
from sean_jax.models.inputs import CAFFE_MEAN_RGB
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds, check_tensors
from sean_jax.parity.domain_seeds import (
    MEAN_RGB,
    discriminator_params,
    discriminator_tensors,
    network_params,
    network_tensors,
    seeded_tensors,
)
from sean_jax.training.augmentation import SourceView, TargetView
from sean_jax.training.parallel import AXIS

FORWARD = 3e-5
ACCURACY = 1e-3  # an argmax near a tie
GRADIENTS = {"norms": 3e-2, "projections": 3e-2, "tensors": 3e-2}  # a ReLU or maximum that switches


def published_method(cls: type[DomainAdversarial], name: str, num_classes: int) -> Any:
    """A method with the preset ``published``, in float32."""
    config = from_flat_settings({**cls.PRESETS["published"], "method": name})
    network = Dilated(settings=config.network_settings, num_classes=num_classes, precision="float32")
    return cls(
        settings=config.method_settings, optimizer=config.optimizer_settings, steps=config.steps, network=network
    )


def compare_fcns_in_the_wild(case: Case) -> Iterator[Check]:
    """The network, the segmentation loss, and global alignment with confusion (L + L_inv)/2."""
    method = published_method(FCNsInTheWild, "fcns_in_the_wild", case.integer("num_classes"))
    drawn = seeded_tensors(case, ["GA"])
    view = _view(case, drawn)
    network = jax.device_put(network_params(drawn))
    yield from _compare_network(method, network, view, case)
    yield from _compare_global(method, network, drawn, view, case)


def compare_cca(case: Case) -> Iterator[Check]:
    """The network, the segmentation loss, global alignment with confusion L_inv, and class-wise alignment."""
    classes = case.integer("num_classes")
    method = published_method(CCA, "cca", classes)
    names = [f"CA{c}" for c in range(classes)]
    drawn = seeded_tensors(case, ["GA", *names])
    view = _view(case, drawn)
    network = jax.device_put(network_params(drawn))
    yield from _compare_network(method, network, view, case)
    yield from _compare_global(method, network, drawn, view, case)

    by_class = [discriminator_params(drawn, name) for name in names]
    discriminators = jax.tree.map(lambda *x: jnp.stack(x), *by_class)

    def logits(network: Params, discriminators: Params, view: DomainView) -> tuple[jax.Array, jax.Array]:
        prediction = method.predict_both(network, view)
        shares = jnp.moveaxis(jnp.concatenate(method.cell_shares(prediction, view)), -1, 0)
        return method.class_logits(discriminators, prediction.features, view), shares

    for name, value in zip(("CA_logits", "CA_weights"), jax.jit(logits)(network, discriminators, view), strict=True):
        yield check(case, name, value, FORWARD)

    found = _on_one_device(functools.partial(method.discriminator_gradients, align=method.align_classes), 2)
    gradients, alignment = found(network, discriminators, view)
    yield check(case, "CA_loss", alignment.loss, FORWARD)
    yield check(case, "CA_loss_inv", alignment.inverse, FORWARD)
    yield check(case, "CA_accuracy", alignment.accuracy / classes, ACCURACY)
    tensors: dict[str, np.ndarray] = {}
    for c, name in enumerate(names):
        tensors |= discriminator_tensors(jax.tree.map(lambda x, c=c: x[c], gradients), name)
    yield from check_tensors(case, "CA_grad_", tensors, bounds=GRADIENTS)
    confused = _on_one_device(
        functools.partial(method.confusion_gradients, confusion=half_of_both, align=method.align_classes), 2
    )
    gradients, _ = confused(network, discriminators, view)
    yield from check_tensors(case, "CA_confusion_grad_", network_tensors(gradients), bounds=GRADIENTS)


def _view(case: Case, drawn: dict[str, np.ndarray]) -> DomainView:
    """The batch, shifted so that the network's own mean leaves that of the domain's data set; checks the seeds."""
    seed, classes = case.integer("seed"), case.integer("num_classes")
    shape = case.integer("batch_size"), case.integer("height"), case.integer("width")
    images = {domain: seeded.image(seed, f"{domain}_image", *shape) for domain in MEAN_RGB}
    label = seeded.label(seed, "source_label", *shape, classes, IGNORE_LABEL, block=5)
    check_seeds(case, {**drawn, "rgb": np.stack(list(images.values())), "source_label": label})
    caffe = np.array(CAFFE_MEAN_RGB)
    source, target = (jnp.float32(images[domain] + (caffe - np.array(mean))) for domain, mean in MEAN_RGB.items())
    return DomainView(SourceView(source, jnp.asarray(label)), TargetView(target))


def _compare_network(method: DomainAdversarial, network: Params, view: DomainView, case: Case) -> Iterator[Check]:
    prediction = jax.jit(method.predict_both)(network, view)
    for name, value, sampled in (
        ("logits", prediction.logits, prediction.logits[:, ::3, ::3]),
        ("fc7", prediction.features, prediction.features[..., ::128]),
    ):
        norm = np.linalg.norm(np.float64(value))
        projection = np.vdot(np.float64(value), np.float64(seeded.direction(name, value.shape)))
        yield check(case, name, sampled, FORWARD)
        yield check(case, f"{name}_norms", [norm], FORWARD)
        yield Check(f"{name}_projections", float(abs(projection - case[f"{name}_projections"][0]) / norm), FORWARD)

    gradients, cross_entropy = _on_one_device(method.segmentation_gradients, 1)(network, view.source)
    yield check(case, "cross_entropy", cross_entropy, FORWARD)
    yield from check_tensors(case, "cross_entropy_grad_", network_tensors(gradients), bounds=GRADIENTS)
    decay = optax.add_decayed_weights(method.optimizer.weight_decay, method.network.decayed)
    regularised: Any = decay.update(gradients, decay.init(network), network)[0]
    penalty = sum(
        method.optimizer.weight_decay / 2 * float(np.sum(np.square(np.float64(x))))
        for x, decays in zip(jax.tree.leaves(network), jax.tree.leaves(method.network.decayed(network)), strict=True)
        if decays
    )
    yield check(case, "task_loss", float(cross_entropy) + penalty, FORWARD)
    tensors = network_tensors(regularised)
    diagonal = np.eye(case.integer("num_classes"), dtype=bool)
    kernel = tensors["upsample"]
    tensors["upsample_off_diagonal"] = np.array([np.linalg.norm(kernel[..., m]) for m in (~diagonal, diagonal)])
    yield from check_tensors(case, "task_grad_", tensors, bounds=GRADIENTS)


def _compare_global(
    method: DomainAdversarial, network: Params, drawn: dict[str, np.ndarray], view: DomainView, case: Case
) -> Iterator[Check]:
    discriminator = discriminator_params(drawn, "GA")

    def logits(network: Params, discriminator: Params, view: DomainView) -> jax.Array:
        return method.discriminate(discriminator, method.predict_both(network, view).features, None)

    yield check(case, "GA_logits", jax.jit(logits)(network, discriminator, view), FORWARD)
    gradients, alignment = _on_one_device(method.discriminator_gradients, 2)(network, discriminator, view)
    yield check(case, "GA_loss", alignment.loss, FORWARD)
    yield check(case, "GA_loss_inv", alignment.inverse, FORWARD)
    yield check(case, "GA_accuracy", alignment.accuracy, ACCURACY)
    yield from check_tensors(case, "GA_grad_", discriminator_tensors(gradients, "GA"), bounds=GRADIENTS)
    confused = _on_one_device(functools.partial(method.confusion_gradients, confusion=method.confusion), 2)
    gradients, _ = confused(network, discriminator, view)
    yield from check_tensors(case, "GA_confusion_grad_", network_tensors(gradients), bounds=GRADIENTS)


def _on_one_device(function: Callable[..., Any], replicated: int) -> Callable[..., Any]:
    """Maps ``function(*replicated, view)`` over one device, since the losses sum over a mapped axis."""
    in_axes, devices = (*[None] * replicated, 0), jax.local_devices()[:1]
    mapped = jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=devices)
    return lambda *args: mapped(*args[:-1], jax.tree.map(lambda x: x[None], args[-1]))
