"""Opens trained networks from run directories and weights files."""

import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

from sean_jax import weights
from sean_jax.data.catalogue import load_label_space
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError
from sean_jax.experiment import Experiment, checked
from sean_jax.methods import Translators
from sean_jax.models import NETWORKS
from sean_jax.run import directory
from sean_jax.run.checkpoints import abstract_state, read_network, read_translators
from sean_jax.settings import names
from sean_jax.untrusted import CONTROL

# Help text of --input_convention in the commands that read weights.
CONVENTION_HELP = "input normalisation that the weights need; default: what the file, its names or its values tell"


class TrainedNetwork(NamedTuple):
    """A network's parameters and their origin.

    Attributes:
      experiment: the run's configuration; for a weights file, its metadata completed by defaults.
      params: the parameter tree.
      name: the network's name in its run, or ``weights file`` if the file's metadata has none.
      step: the training step, or None if the file's metadata has none.
      origin: the run directory and name, or the path of the weights file.
    """

    experiment: Experiment
    params: Any
    name: str
    step: int | None
    origin: str


class TrainedTranslators(NamedTuple):
    """A run's configuration, its networks that translate images, and the training step that they are from."""

    experiment: Experiment
    networks: Translators
    step: int


def open_network(
    workdir: str | None = None,
    weights_file: str | None = None,
    network: str | None = None,
    input_convention: str | None = None,
) -> TrainedNetwork:
    """Opens one network of a run, or the one in a weights file.

    A run's network is read from the last checkpoint, or from the best one for ``--selection=oracle``.

    Args:
      workdir: a run directory.
      weights_file: a weights file with metadata, as ``port_weights`` writes it, or the authors' checkpoint.
      network: the name of one of the run's networks; None for the main one (for ``sean`` the teacher).
      input_convention: what the weights in a file need; None to find out.

    Raises:
      UserError: both or neither of ``workdir`` and ``weights_file`` are given, or they cannot be used.
    """
    if (workdir is None) == (weights_file is None):
        raise UserError("give either --workdir (a run directory) or --weights (a weights file)")
    if workdir is not None:
        if input_convention is not None:
            raise UserError(f"--input_convention={input_convention} is for --weights; a run knows its own: omit it")
        return _open_run(workdir, network)
    assert weights_file is not None
    if network is not None:
        raise UserError(f"--network={network} selects one of a run's networks; a --weights file has only one, omit it")
    return _open_file(weights_file, input_convention)


def open_translators(workdir: str | os.PathLike[str], precision: str | None = None) -> TrainedTranslators:
    """Opens the networks of a run that translate images, from its last checkpoint.

    Args:
      workdir: a run directory.
      precision: arithmetic; None for the run's.

    Raises:
      UserError: the run has none, or they cannot be read.
    """
    experiment = directory.load(workdir)
    if precision is not None:
        experiment = experiment._replace(config=dataclasses.replace(experiment.config, precision=precision))
    networks, step = read_translators(workdir, experiment.method())
    return TrainedTranslators(experiment, networks, step)


def network_names(workdir: str | os.PathLike[str]) -> list[str]:
    """Returns the names of a run's networks, the main one first."""
    method = directory.load(workdir).method()
    return list(method.evaluated(abstract_state(method)))


def read_run(workdir: str, network: str | None = None) -> weights.WeightsFile:
    """Reads a run's network as a weights file with metadata; see :func:`open_network`."""
    trained = open_network(workdir, network=network)
    tensors = weights.from_params(trained.params, trained.experiment.network().TORCH_MODULES)
    metadata = trained.experiment.weights_metadata() | {"network": trained.name, "step": trained.step}
    return weights.WeightsFile(tensors, metadata, workdir)


def _open_run(workdir: str, network: str | None) -> TrainedNetwork:
    experiment = directory.load(workdir)
    best = experiment.config.selection == "oracle"
    name, params, step = read_network(workdir, experiment.method(), network, best=best)
    return TrainedNetwork(experiment, params, name, step, f"{pathlib.Path(workdir)}, {name}")


def _open_file(path: str, input_convention: str | None) -> TrainedNetwork:
    file = weights.read(path, input_convention)
    try:
        experiment = _experiment_of(file, path)
        abstract = experiment.network().abstract_params()
        name, step = _place_in_run(weights.metadata(file))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # metadata that this project did not write
        raise UserError(
            f"--weights={path} has damaged metadata ({error!r}); write the file again with port_weights"
        ) from None
    params, report = weights.into_params(file, abstract, experiment.network().TORCH_MODULES)
    if report.missing:
        raise UserError(
            f"--weights={path} is not a complete network: it lacks {', '.join(report.missing[:3])}, …; give weights of "
            "a complete segmentation network"
        )
    origin = f"{path} ({file.origin})" if file.origin else path
    return TrainedNetwork(experiment, params, name, step, origin)


def _place_in_run(metadata: dict[str, Any]) -> tuple[str, int | None]:
    """The network's name in the run that a file is of, and the step."""
    name, step = metadata.get("network", "weights file"), metadata.get("step")
    if not isinstance(name, str) or CONTROL.search(name) or not isinstance(step, int | None):
        raise ValueError(f"network {name!r:.100} at step {step!r:.100}")
    return name, step


def architecture_of(metadata: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Returns the name and settings of the network that a file's metadata describes; None if it describes none.

    ``architecture`` is ``{"name": ..., ...settings}``, or ``"reference"`` for the authors' network.
    """
    found = metadata.get("architecture")
    if found == "reference":
        return "deeplab", dict(NETWORKS["deeplab"].PRESETS["reference"])
    if not isinstance(found, dict):
        return None
    settings = dict(found)
    name = settings.pop("name", "deeplab")
    if name not in NETWORKS or not settings.keys() <= set(names(NETWORKS[name].Settings)):
        return None
    return name, settings


def _experiment_of(file: weights.WeightsFile, path: str) -> Experiment:
    metadata = weights.metadata(file)
    architecture = architecture_of(metadata)
    if architecture is None:
        raise UserError(
            f"--weights={path} does not describe its architecture; expected the authors' SEAN checkpoint or a file "
            "that port_weights wrote"
        )
    if "classes" in metadata:
        space = LabelSpace.from_dict(metadata["classes"])
    else:  # the authors' checkpoints: 19 classes for GTA-5, 16 for SYNTHIA
        count = str(len(file.tensors["classifier.conv2d_list.0.bias"]))
        if count not in ("19", "16", "13"):
            raise UserError(
                f"--weights={path} has {count} classes and does not name them; expected 19, 16 or 13 classes, or a "
                "file that port_weights wrote from a run"
            )
        space = load_label_space(count)
    known = {name: metadata[name] for name in ("height", "width", "method", "seed", "selection") if name in metadata}
    name, settings = architecture
    config = checked(
        {
            "architecture": name,
            "preset": "reference",
            "initialization": "pretrained",
            "input_convention": weights.input_convention(file),
            **settings,
            **known,
        }
    )
    return Experiment(config, space)
