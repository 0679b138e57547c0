"""How often a run draws each image of its source and target."""

import functools
import io
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sean_jax import atomic
from sean_jax.data.concurrency import cpu_count, ordered_map
from sean_jax.data.dataset import label_map
from sean_jax.data.prepared import PreparedSet
from sean_jax.data.statistics import class_shares, importance_probabilities, rare_class_probabilities
from sean_jax.errors import UserError
from sean_jax.models import Network, Params
from sean_jax.run import hosts
from sean_jax.run.plan import Plan
from sean_jax.scoring.predictor import predict

TARGET_SHARES = "target_shares.npy"  # in the run directory: float32 [images, classes]


def source_shares(plan: Plan, source: PreparedSet) -> np.ndarray:
    """The share of each class in each source image; see :func:`sean_jax.data.statistics.class_shares`."""
    space = plan.experiment.label_space
    return class_shares(source, label_map(plan.source, space), space.num_classes)


def source_probabilities(plan: Plan, source: PreparedSet) -> np.ndarray | None:
    """The probability of each source image, ``[images]``; None if each is drawn once an epoch."""
    config = plan.experiment.config
    if config.source_sampling == "uniform":
        return None
    return rare_class_probabilities(source_shares(plan, source), config.rare_class_temperature)


def target_probabilities(
    plan: Plan, target: PreparedSet, workdir: pathlib.Path, initial: Params | None
) -> np.ndarray | None:
    """The probability of each target image, ``[images]``; None if each is drawn once an epoch.

    What the initial network predicts is stored in the run directory: a run that resumes has that network no longer.

    Args:
      initial: the network's parameters at step 0; None if the run resumes.

    Raises:
      UserError: the stored predictions are gone.
    """
    if plan.experiment.config.target_sampling == "uniform":
        return None
    file = workdir / TARGET_SHARES
    with hosts.leader_first("classes of the target are predicted"):
        if initial is not None and jax.process_index() == 0:
            with atomic.replacing(file) as temporary, open(temporary, "wb") as opened:
                np.save(opened, predicted_shares(plan.experiment.network(), initial, target))
        try:
            return importance_probabilities(np.load(file).astype(np.float64))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); the run cannot resume without it") from error


def predicted_shares(network: Network, params: Params, target: PreparedSet) -> np.ndarray:
    """The share of each class among the pixels of each image, as a network predicts them; float32."""
    size = target.height, target.width
    params = jax.device_put(params, jax.local_devices()[0])
    of_image = functools.partial(_shares, network, size)

    def read(index: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(target.read(index)["image"])))

    images = ordered_map(read, range(len(target)), cpu_count())
    return np.stack([jax.device_get(of_image(params, image)) for image in images])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _shares(network: Network, size: tuple[int, int], params: Any, image: jax.Array) -> jax.Array:
    classes = predict(network, params, image[None], size).classes
    return jnp.mean(jax.nn.one_hot(classes, network.num_classes), (0, 1, 2))
