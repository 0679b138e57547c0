"""CycleGAN: translations, every term of the loss, gradients, two steps, the learning rate and the image pool."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sean_jax.methods.cyclegan import CycleGAN, CycleGANSettings, Views
from sean_jax.parity import cyclegan_networks as networks
from sean_jax.parity import seeded
from sean_jax.parity.cases import Case, Check, check, check_seeds, check_tensors, relative_error
from sean_jax.settings import from_flat
from sean_jax.training import image_pool
from sean_jax.training.optimizers import OptimizerSettings, linear_decay
from sean_jax.training.parallel import AXIS, replicate

# The authors' names and ours. A is the source, B the target; D_A judges images of B.
_NETWORKS = {
    "G_A": "to_target",
    "G_B": "to_source",
    "D_A": "target_discriminator",
    "D_B": "source_discriminator",
    "CLS": "segmentation",
}
_TERMS = _NETWORKS | {
    "cycle_A": "cycle_source",
    "cycle_B": "cycle_target",
    "idt_A": "identity_target",
    "idt_B": "identity_source",
    "sem_AB": "semantic_to_target",
    "sem_BA": "semantic_to_source",
}
_IMAGES = {"fake_B": "to_target", "rec_A": "source_again", "fake_A": "to_source", "rec_B": "target_again"}

_FORWARD, _HISTORY = 3e-5, 1e-3
_GRADIENTS = {"norms": 3e-2, "projections": 3e-2, "tensors": 3e-2}
_OPEN_GRADIENTS = {"norms": 1e-1, "projections": 1e-1, "tensors": 1e-1}
_DELTAS = ({"norms": 3e-2, "projections": 4e-1, "tensors": 6e-2}, {"norms": 5e-2, "projections": 4e-1, "tensors": 2e-1})


def compare(case: Case) -> Iterator[Check]:
    """Runs two steps of a case and yields one check for each stored quantity."""
    method, views = _method(case), [_views(case, step) for step in range(2)]
    drawn = seeded.weights(case.integer("seed"), networks.spec(case.integer("blocks")))
    check_seeds(case, drawn | {"real_A": views[0].source, "real_B": views[0].target})
    for index in (3, 6, 9):
        drawn[f"CLS.before_linear.{index}.weight"] += 1
    # Without effect, in front of a normalisation; our networks do not have them.
    for name in case["parameter_names"][case["zero_gradient"]]:
        del drawn[str(name)]
    params = {ours: networks.to_tree(_part(drawn, name), _modules(case)[name]) for name, ours in _NETWORKS.items()}
    state = _initial_state(method, params)
    initial = _tensors(case, state.params)

    yield from _compare_terms(case, method, state, views[0])
    step = _on_one_device(_step, 2)
    after, found = step(method, state, views[0])
    yield from _compare_forward(case, found)
    yield from _compare_gradients(case, "", found["gradients"], _GRADIENTS)
    yield from _compare_deltas(case, 1, initial, after.params)
    yield Check("history, step 1", _history_error(case, 0, found["metrics"]), _FORWARD)
    if _is_semantic(case):  # the case holds the gate open
        loss = replicate(jnp.float32(0.5), jax.local_devices()[:1])
        after = after.replace(memory=after.memory | {"segmentation_loss": loss})
    after, found = step(method, after, views[1])
    if _is_semantic(case):
        yield from _compare_gradients(case, "open_", found["gradients"], _OPEN_GRADIENTS)
    yield from _compare_deltas(case, 2, initial, after.params)
    yield Check("history, step 2", _history_error(case, 1, found["metrics"]), _HISTORY)


def compare_tables(case: Case) -> Iterator[Check]:
    """The learning rate in each epoch, and the image pool under a given random stream."""
    for name in case:
        if name.startswith("lr_epochs_"):
            constant, decay, _ = map(int, name.removeprefix("lr_epochs_").split("_"))
            steps = jnp.asarray(case[name] - 1, jnp.int32)  # of one step an epoch
            factor = jax.vmap(lambda step, c=constant, d=decay: linear_decay(step, c + d, c, d))(steps)
            rates = case.number("base_learning_rate") * np.float64(factor)
            yield check(case, name.replace("epochs_", ""), rates, 1e-6)
        elif name.startswith("pool_") and name.endswith("_returned"):
            yield from _compare_pool(case, name.removesuffix("returned"))


def _compare_pool(case: Case, prefix: str) -> Iterator[Check]:
    size, _, batch = prefix.removeprefix("pool_size").strip("_").partition("_batch")
    uniforms, indices = (jnp.asarray(case[f"{prefix}{x}"]) for x in ("uniform", "index"))
    images = jnp.arange(len(uniforms), dtype=jnp.float32)
    if size == "0":
        _, returned = image_pool.exchange(image_pool.empty(0, ()), images, jax.random.key(0))
        yield check(case, f"{prefix}returned", returned, 0.0)
        return
    inputs = (images, uniforms.astype(jnp.float32), indices.astype(jnp.int32))
    queries = [x.reshape(-1, int(batch or 1)) for x in inputs]

    def query(pool: image_pool.Pool, inputs: Any) -> tuple[image_pool.Pool, Any]:
        pool, returned = image_pool.query(pool, *inputs)
        return pool, (returned, jnp.where(jnp.arange(int(size)) < pool.count, pool.images, -1))

    _, (returned, contents) = jax.lax.scan(query, image_pool.empty(int(size), ()), tuple(queries))
    yield check(case, f"{prefix}returned", returned.ravel(), 0.0)
    for name, found in (("content", contents), ("final", contents[-1])):
        if prefix + name in case:
            yield check(case, prefix + name, found, 0.0)


def _initial_state(method: CycleGAN, params: Mapping[str, Any]) -> Any:
    """The state at step 0 with given parameters; all else in it is zero but for the loss that opens the gate."""
    abstract = jax.eval_shape(method.init, jax.random.key(0), params["segmentation"])
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract)
    if "segmentation_loss" in state.memory:
        state.memory["segmentation_loss"] = jnp.float32(1e9)
    state = state.replace(params={name: params[name] for name in state.params})
    return replicate(state, jax.local_devices()[:1])  # as a step returns it, so that the second one is not compiled


def _is_semantic(case: Case) -> bool:
    return "labels_A" in case


def _method(case: Case) -> CycleGAN:
    size = (case.integer("height"), case.integer("width"))
    semantic = _is_semantic(case)
    given = {
        "translator_blocks": case.integer("blocks"),
        "crop_size": max(size),
        "cycle_weight_source": case.number("lambda_A"),
        "cycle_weight_target": case.number("lambda_B"),
        "identity_weight": case.number("lambda_identity"),
        "to_target_weight": 2.0 if semantic else 1.0,
        "decay_epochs": 0,
        "semantic_network": "trained" if semantic else "none",
        **case.settings(("learning_rate", "beta1")),
        "weight_decay": 0.0,
    }
    method_settings, optimizer = from_flat(CycleGANSettings, given), from_flat(OptimizerSettings, given)
    network = networks.Classifier(settings=None, num_classes=10)
    return CycleGAN(settings=method_settings, optimizer=optimizer, steps=2, network=network, image_size=size)


def _views(case: Case, step: int) -> Views:
    seed, batch = case.integer("seed"), case.integer("batch_size")
    shape = (batch, case.integer("height"), case.integer("width"))
    seeds = (seed, seed * 1000 + 1)
    # In NumPy and in these steps, so that the sums agree with those of the case in every digit.
    images = [seeded.image(seeds[step], name, *shape) / np.float32(255) for name in ("real_A", "real_B")]
    source, target = (jnp.asarray((image - np.float32(0.5)) / np.float32(0.5)) for image in images)
    label = case["labels_A"] if _is_semantic(case) else np.zeros(batch)
    return Views(source, target, jnp.asarray(label, jnp.int32).reshape(-1, 1, 1))


def _modules(case: Case) -> dict[str, networks.Modules]:
    generator = networks.generator(case.integer("blocks"))
    return dict.fromkeys(("G_A", "G_B"), generator) | {
        "D_A": networks.DISCRIMINATOR,
        "D_B": networks.DISCRIMINATOR,
        "CLS": networks.CLASSIFIER,
    }


def _part(tensors: Mapping[str, np.ndarray], network: str) -> dict[str, np.ndarray]:
    prefix = f"{network}."
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _tensors(case: Case, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters or gradients under the authors' names."""
    modules, found = _modules(case), {}
    for name, ours in _NETWORKS.items():
        if ours in params:
            tensors = networks.to_tensors(params[ours], modules[name])
            found |= {f"{name}.{key}": np.float64(x) for key, x in tensors.items()}
    return found


def _step(method: CycleGAN, state: Any, views: Views) -> tuple[Any, dict[str, Any]]:
    """The state after a step, and everything that a case stores of it; equal computations are done once."""
    generators, (_, translated) = method.generator_gradients(state, views)
    fakes = {name: getattr(translated, name) for name in ("to_target", "to_source")}
    discriminators, _ = method.discriminator_gradients(state, views, fakes)
    gradients = {"G": generators, "D": discriminators}
    found: dict[str, Any] = {"translated": translated, "gradients": gradients}

    def judge(network: str, images: jax.Array) -> Any:
        return method.discriminator().apply({"params": state.params[_NETWORKS[network]]}, images)

    found["maps"] = {
        "D_A_real": judge("D_A", views.target),
        "D_A_fake": judge("D_A", translated.to_target),
        "D_B_real": judge("D_B", views.source),
        "D_B_fake": judge("D_B", translated.to_source),
    }
    if method.settings.semantic_network != "none":
        gradients["CLS"], _ = method.segmentation_gradients(state, views)
        images = {"real_A": views.source, "real_B": views.target} | {
            "fake_A": translated.to_source,
            "fake_B": translated.to_target,
        }
        logits = {name: method.segment(state.params["segmentation"], x)[:, 0, 0] for name, x in images.items()}
        found["maps"] |= {f"CLS_{name}": x for name, x in logits.items()}
    after, found["metrics"] = method.update(state, views, jax.random.key(0))
    return after, found


def _compare_terms(case: Case, method: CycleGAN, state: Any, views: Views) -> Iterator[Check]:
    """Each term's value and the norms of its gradients, one term at a time by a factor of 1 among zeros."""

    def weighted(method: CycleGAN, params: Any, factors: Any, views: Views) -> Any:
        def loss_fn(generators: Any) -> tuple[jax.Array, Any]:
            terms, _ = method.generator_terms(params | generators, views)
            return jnp.sum(jnp.stack([factors[name] * x for name, x in terms.items()])), terms

        generators = {_NETWORKS[name]: params[_NETWORKS[name]] for name in ("G_A", "G_B")}
        gradients, terms = jax.grad(loss_fn, has_aux=True)(generators)
        squares = {name: sum(jnp.sum(x * x) for x in jax.tree.leaves(tree)) for name, tree in gradients.items()}
        return terms, jax.tree.map(jnp.sqrt, squares)

    names, compute = [_TERMS[str(name)] for name in case["term_names"]], _on_one_device(weighted, 3)
    losses, norms = [], []
    for term in names:
        factors = {name: jnp.float32(name == term) for name in names}
        terms, found = compute(method, state.params, factors, views)
        losses.append(terms[term])
        norms.append([found["to_target"], found["to_source"]])
    yield check(case, "term_losses", losses, _FORWARD)
    yield check(case, "term_grad_norms", norms, _GRADIENTS["norms"])


def _compare_forward(case: Case, found: Mapping[str, Any]) -> Iterator[Check]:
    for name, ours in _IMAGES.items():
        image = np.asarray(getattr(found["translated"], ours), np.float64)
        norm, expected = np.linalg.norm(image), case[f"{name}_projections"].item()
        projection = np.vdot(image, np.float64(seeded.direction(name, image.shape)))
        yield check(case, name, image[:, ::3, ::3], _FORWARD)
        yield check(case, f"{name}_norms", [norm], _FORWARD)
        yield Check(f"{name}_projections", abs(projection - expected) / norm, _FORWARD)
    for name, value in found["maps"].items():
        yield check(case, name, value, _FORWARD)


def _compare_gradients(
    case: Case, prefix: str, gradients: Mapping[str, Any], bounds: Mapping[str, float]
) -> Iterator[Check]:
    for group, tree in gradients.items():
        yield from check_tensors(case, f"{prefix}{group}_grad_", _tensors(case, tree), bounds=bounds)
        yield from check_tensors(case, f"{prefix}grad_", _tensors(case, tree), bounds=bounds)


def _compare_deltas(case: Case, step: int, initial: Mapping[str, np.ndarray], params: Any) -> Iterator[Check]:
    deltas = {name: x - initial[name] for name, x in _tensors(case, params).items()}
    yield from check_tensors(case, f"step{step}_delta_", deltas, bounds=_DELTAS[step - 1])


def _history_error(case: Case, step: int, metrics: Mapping[str, Any]) -> float:
    names = [_TERMS[str(name)] for name in case["history_names"]]
    pairs = zip(names, case["history"][step], strict=True)
    return max(relative_error(metrics[f"train/loss_{name}"], expected) for name, expected in pairs)


def _on_one_device(function: Any, replicated: int) -> Any:
    """Maps ``function(*replicated, views)`` over one device, since the losses are sums over a mapped axis."""
    in_axes = (*[None] * replicated, 0)
    mapped = jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=jax.local_devices()[:1])
    return lambda *args: mapped(*args[:-1], jax.tree.map(lambda x: x[None], args[-1]))
