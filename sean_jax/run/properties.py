"""The stage that infers properties of target images from a source-trained network and the labelled source.

For each target image it stores beside the prepared target

- ``label_distribution``: the shares of the classes in it, by a regression on mean features of the network,
- ``superpixels``: a map of superpixel ids,
- ``superpixel_labels``: the class of each superpixel, or 255 for all but the most confident ones,
- ``superpixel_confidence``: the probability of that class; NaN for ids that the image does not have.

Both regressions are fitted on source images. The labels of the target are never read, and the properties of an image do
not depend on the other target images. The names of the stored arrays end in a digest of the network and the settings,
so that runs can share a data folder.

The code and data that inferred the published properties are gone. What stands in for them is printed, and noted in
``properties.json``, in the run's ``config.json`` and with its scores; see ``SUBSTITUTED`` of the method.
"""

import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from sean_jax import atomic
from sean_jax.data.concurrency import cpu_count, lock, ordered_map
from sean_jax.data.dataset import label_map
from sean_jax.data.label_spaces import IGNORE_LABEL
from sean_jax.data.prepared import PreparedSet, write_extra
from sean_jax.errors import UserError
from sean_jax.models import Network
from sean_jax.ops.resize import resize_bilinear
from sean_jax.properties.regression import LabelDistribution, SuperpixelLabels, most_confident
from sean_jax.properties.superpixels import centroids, find_superpixels, majority_labels, with_neighbours
from sean_jax.run import hosts
from sean_jax.run.directory import write_json
from sean_jax.run.plan import Plan, fingerprint, plan, prepare_training
from sean_jax.run.trained import TrainedNetwork, open_network

EXTRAS = ("label_distribution", "superpixels", "superpixel_labels", "superpixel_confidence")
_PART = 64  # images between files of intermediate results, from which an interrupted stage resumes
_VERSION = 1  # of the inference; raise it when results change


# What is kept of one image:
#   features     float32 [f], the mean of the network's feature map
#   scores       float32 [superpixels, 7 * classes], class probabilities of each superpixel and its neighbours
#   superpixels  [H, W] ids, of a target image
#   labels       uint8 [superpixels], class index or 255, of a source image
#   shares       float64 [classes], among the labelled pixels of a source image
Description = dict[str, np.ndarray]


def infer(settings: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Infers the properties, unless they are stored already, and returns the digest in their names.

    Args:
      settings: of the run that needs them; ``init_weights`` is the source-trained network.
      folder: for intermediate results, from which an interrupted stage resumes, and ``properties.json``.

    Raises:
      UserError: scikit-image or scikit-learn is missing, or the network predicts other classes or is incomplete.
    """
    _check_libraries()
    resolved = plan(settings)
    trained = _open(resolved)
    with hosts.leader_first("properties are inferred"):
        source, target = prepare_training(resolved, reads_target=True, progress=jax.process_index() == 0)
        assert target is not None
        digest = _digest(resolved, trained, source)
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / "lock"):
            if not all(target.has_extra(f"{name}_{digest}") for name in EXTRAS):
                _infer(resolved, trained, source, target, digest, folder)
            _report(resolved, trained, target, digest, folder)
    return digest


def _check_libraries() -> None:
    for module, package in (("skimage", "scikit-image"), ("sklearn", "scikit-learn")):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"inferring properties of the target needs {package}, which is not installed; install this package "
                "with its extra `cda`, as in pip install '.[cda]'"
            )


def _open(resolved: Plan) -> TrainedNetwork:
    path, space = resolved.experiment.config.init_weights, resolved.experiment.label_space
    if not path:
        raise UserError("inferring properties of the target needs --init_weights: a network trained on the source")
    trained = open_network(path) if os.path.isdir(path) else open_network(weights_file=path)
    if trained.experiment.label_space.classes != space.classes:
        theirs = ", ".join(trained.experiment.label_space.classes)
        raise UserError(
            f"--init_weights={path} predicts {theirs}; expected the run's classes, {', '.join(space.classes)}"
        )
    return trained


def _digest(resolved: Plan, trained: TrainedNetwork, source: PreparedSet) -> str:
    """Twelve hexadecimal digits that identify everything that the properties of a target image follow from."""
    experiment, used = resolved.experiment, resolved.experiment.config.method_settings
    facts = {
        "version": _VERSION,
        "network": repr(trained.experiment.network()),
        "classes": experiment.label_space.to_dict(),
        "source": [fingerprint(resolved.source, source), source.height, source.width],
        "seed": experiment.config.seed,
        **{name: getattr(used, name) for name in ("superpixel_count", "superpixel_share", "property_images")},
    }
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained.params):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf, np.float32).tobytes())
    return found.hexdigest()[:12]


def _infer(
    resolved: Plan, trained: TrainedNetwork, source: PreparedSet, target: PreparedSet, digest: str, folder: pathlib.Path
) -> None:
    experiment, settings = resolved.experiment, resolved.experiment.config.method_settings
    work = folder / f"work_{digest}"
    work.mkdir(exist_ok=True)
    source_map = label_map(resolved.source, experiment.label_space)
    describe = Describer(trained.experiment.network(), trained.params, settings.superpixel_count, source_map)
    drawn = np.random.default_rng(experiment.config.seed).permutation(len(source))[: settings.property_images]
    distribution, classifier = _fit(
        _described(describe, source, sorted(drawn.tolist()), work / "source"), experiment.label_space.num_classes
    )

    shape, ids = (len(target), 2 * settings.superpixel_count), np.min_scalar_type(2 * settings.superpixel_count)
    maps = np.lib.format.open_memmap(work / "superpixels.npy", "w+", ids, (len(target), target.height, target.width))
    labels, confidence = np.full(shape, IGNORE_LABEL, np.uint8), np.full(shape, np.nan, np.float32)
    shares = np.zeros((len(target), experiment.label_space.num_classes), np.float32)
    for index, image in enumerate(_described(describe, target, range(len(target)), work / "target")):
        found, probability = classifier.predict(image["scores"])
        kept = most_confident(probability, settings.superpixel_share)
        labels[index, : len(found)] = np.where(kept, found, IGNORE_LABEL)
        confidence[index, : len(found)] = probability
        shares[index] = distribution.predict(image["features"][None])[0]
        maps[index] = image["superpixels"]
    arrays = (shares, maps, labels, confidence)
    for name, array in zip(EXTRAS, arrays, strict=True):
        write_extra(target, f"{name}_{digest}", array)
    shutil.rmtree(work)


def _fit(images: Iterable[Description], num_classes: int) -> tuple[LabelDistribution, SuperpixelLabels]:
    """Fits both regressions to source images."""
    features, shares, scores, labels = [], [], [], []
    for image in images:
        labelled = image["labels"] != IGNORE_LABEL
        scores.append(image["scores"][labelled])
        labels.append(image["labels"][labelled])
        if image["shares"].any():
            features.append(image["features"])
            shares.append(image["shares"])
    if not features or not any(map(len, labels)):
        raise UserError("the source images have no labelled pixels, from which to learn properties of the target")
    numbers = np.repeat(np.arange(len(labels)), [len(of_image) for of_image in labels])
    classifier = SuperpixelLabels(np.concatenate(scores), np.concatenate(labels), numbers, num_classes)
    return LabelDistribution(np.stack(features), np.stack(shares)), classifier


class Describer:
    """Finds an image's superpixels and what a network says of them."""

    def __init__(self, network: Network, params: Any, superpixel_count: int, source_map: np.ndarray):
        """See :data:`Description`.

        Args:
          network, params: the source-trained network.
          superpixel_count: see :func:`sean_jax.properties.superpixels.find_superpixels`.
          source_map: uint8 [256], raw label id of the source → class index or 255.
        """
        self._network, self._params = network, jax.device_put(params)
        self._count, self._source_map = superpixel_count, source_map

    def __call__(self, prepared: PreparedSet, indices: Sequence[int]) -> Iterator[Description]:
        """Describes images of a prepared set, and their labels if the set has them."""

        def read(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
            record = prepared.read(index)
            image = np.asarray(Image.open(io.BytesIO(record["image"])))
            label = record.get("label")
            if label is not None:
                label = self._source_map[np.asarray(Image.open(io.BytesIO(label)))]
            return image, find_superpixels(image, self._count), label

        classes = self._network.num_classes
        for image, superpixels, label in ordered_map(read, indices, cpu_count()):
            # Padded, so that the program is compiled once for all images.
            features, scores = jax.device_get(_pool(self._network, 2 * self._count, self._params, image, superpixels))
            scores = with_neighbours(scores[: superpixels.max() + 1], centroids(superpixels))
            found = {"features": features, "scores": scores}
            if label is None:
                yield found | {"superpixels": superpixels}
                continue
            counts = np.bincount(label[label != IGNORE_LABEL], minlength=classes)
            labels = majority_labels(superpixels, label, classes)
            yield found | {"labels": labels, "shares": counts / max(1, counts.sum())}


def _pool_image(
    network: Network, length: int, params: Any, image: jax.Array, superpixels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean features of an image ``[f]``, and the softmax of mean logits of each superpixel ``[length, classes]``."""
    prediction = network.predict(params, image[None])
    height, width = superpixels.shape
    logits = resize_bilinear(prediction.logits, (height, width))[0]
    ids = superpixels.ravel().astype(jnp.int32)
    sums = jax.ops.segment_sum(logits.reshape(len(ids), -1), ids, length)
    areas = jax.ops.segment_sum(jnp.ones((len(ids), 1), jnp.float32), ids, length)
    return prediction.features[0].astype(jnp.float32).mean((0, 1)), jax.nn.softmax(sums / areas.clip(1))


_pool = jax.jit(_pool_image, static_argnums=(0, 1))


def _described(
    describe: Describer, prepared: PreparedSet, indices: Sequence[int], folder: pathlib.Path
) -> Iterator[Description]:
    """The images of ``indices`` in order; those of finished parts are read from ``folder``."""
    folder.mkdir(exist_ok=True)
    title = f"properties of {folder.name} images"
    with tqdm(total=len(indices), desc=title, unit="img", disable=jax.process_index() != 0) as bar:
        for start in range(0, len(indices), _PART):
            part, file = indices[start : start + _PART], folder / f"{start:07d}.npz"
            if not file.exists():
                images = dict(zip(part, describe(prepared, part), strict=True))
                arrays = {f"{name} {index}": array for index, image in images.items() for name, array in image.items()}
                with atomic.replacing(file) as temporary:
                    np.savez(temporary, **arrays)  # pyright: ignore[reportArgumentType]
            with np.load(file) as stored:
                arrays = dict(stored)
            names = {name.split()[0] for name in arrays}
            yield from ({name: arrays[f"{name} {index}"] for name in names} for index in part)
            bar.update(len(part))


def _report(resolved: Plan, trained: TrainedNetwork, target: PreparedSet, digest: str, folder: pathlib.Path) -> None:
    """Prints what was inferred and what was substituted, and writes ``properties.json``."""
    labels = np.asarray(target.extra(f"superpixel_labels_{digest}"))
    confidence = np.asarray(target.extra(f"superpixel_confidence_{digest}"))
    kept = labels != IGNORE_LABEL
    substituted = dict(resolved.experiment.method().SUBSTITUTED)
    mean = np.asarray(target.extra(f"label_distribution_{digest}"), np.float64).mean(axis=0)
    facts = {
        "properties": digest,
        "network": trained.origin,
        "source": resolved.experiment.config.source,
        "target_images": len(target),
        "superpixels_per_image": float((~np.isnan(confidence)).sum(1).mean()),
        "kept_superpixels_per_image": float(kept.sum(1).mean()),
        "mean_confidence_of_kept": float(confidence[kept].mean()),
        "mean_label_distribution": dict(
            zip(resolved.experiment.label_space.classes, mean.round(5).tolist(), strict=True)
        ),
        "substituted": substituted,
    }
    if jax.process_index() == 0:
        write_json(folder / "properties.json", facts)
        print(
            f"properties {digest} of {len(target)} target images: {facts['superpixels_per_image']:.0f} superpixels an "
            f"image, {facts['kept_superpixels_per_image']:.0f} of them labelled"
        )
        for published, ours in substituted.items():
            print(f"substituted: {ours} for {published}")
