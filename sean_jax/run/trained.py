"""A trained network from a run directory or a weights file, ready to be applied."""

import pathlib
from typing import Any, NamedTuple

from sean_jax import weights
from sean_jax.config import ARCHITECTURE, Config, reference_architecture
from sean_jax.data.catalogue import load_label_space
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError
from sean_jax.run import directory as rundir
from sean_jax.run.checkpoints import read_weights
from sean_jax.run.directory import Run


class Network(NamedTuple):
    """Parameters and what is known of how they came about."""

    run: Run  # of a weights file: what its metadata say, and the defaults
    params: Any
    name: str  # "teacher", "student", or "weights file" for one that does not say
    step: int | None  # None for a weights file that does not say
    origin: str


def open_network(workdir: str | None, weights_file: str | None, network: str | None) -> Network:
    """The network of a run (``teacher``, unless ``student`` is asked for, at the checkpoint that counts) or of a file.

    Raises:
      UserError: not exactly one of the two is given, or it cannot be used.
    """
    if (workdir is None) == (weights_file is None):
        raise UserError("give either --workdir (a run directory) or --weights (a weights file)")
    if workdir is not None:
        name = network or "teacher"
        params, metadata = read_weights(workdir, name)
        return Network(rundir.load(workdir), params, name, metadata["step"], f"{pathlib.Path(workdir)}, {name}")
    assert weights_file is not None
    if network is not None:
        raise UserError(f"--network={network} chooses one of a run's networks; --weights holds a single one")
    file = weights.read(weights_file)
    try:
        run = _run_of(file, weights_file)
        abstract = run.network().abstract_params()
    except (KeyError, TypeError, ValueError) as error:  # metadata that neither we nor the authors wrote
        raise UserError(f"--weights={weights_file} has damaged metadata ({error!r}); port its weights anew") from None
    params, report = weights.into_params(file, abstract)
    if report.fresh:
        raise UserError(f"--weights={weights_file} is no whole network: it lacks {', '.join(report.fresh[:3])}, …")
    metadata = weights.metadata(file)
    return Network(run, params, metadata.get("network", "weights file"), metadata.get("step"), weights_file)


def _run_of(file: weights.WeightsFile, path: str) -> Run:
    metadata = weights.metadata(file)
    architecture = metadata.get("architecture")
    if architecture == "reference":
        architecture = reference_architecture()
    if not isinstance(architecture, dict) or not architecture.keys() <= set(ARCHITECTURE):
        raise UserError(
            f"--weights={path} does not say which architecture it is of; expected a SEAN checkpoint, the authors' or "
            "one that port_weights wrote"
        )
    if "classes" in metadata:
        space = LabelSpace.from_dict(metadata["classes"])
    else:  # the authors' checkpoints: 19 classes for GTA-5, 16 for SYNTHIA
        count = str(len(file.tensors["classifier.conv2d_list.0.bias"]))
        if count not in ("19", "16", "13"):
            raise UserError(
                f"--weights={path} has {count} classes and does not name them; add metadata by port_weights"
            )
        space = load_label_space(count)
    known = {name: metadata[name] for name in ("height", "width", "method", "seed", "selection") if name in metadata}
    config = Config(
        preset="reference",
        initialization="pretrained",
        input_convention=metadata["input_convention"],
        **architecture,
        **known,
    )
    return Run(config, space)
