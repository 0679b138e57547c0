"""Presets: named sets of defaults. Methods and networks add their part of a preset, or presets of their own."""

from collections.abc import Mapping
from typing import Any

from sean_jax.config import lookup
from sean_jax.errors import UserError
from sean_jax.methods import METHODS
from sean_jax.models import NETWORKS
from sean_jax.settings import names

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # What a method's own paper used: its network, optimiser, image size, initial weights and schedule. Methods fill it.
    "published": {},
    # What the authors' code does; methods and networks add their part. Validation images and oracle selection follow
    # the target, see resolve.
    "reference": {"eval_every": 500},
    # Class mixing with logit adjustment, Fourier adaptation, changed colours and rare-class sampling: what gains most
    # on IDDA (experiments/README.md). The learning rate scored best of four on held-out images of the source there.
    "best": {
        "method": "dacs",
        "source_sampling": "rare_classes",
        "learning_rate": 3e-5,
        "learning_rate_schedule": "cosine",
    },
    # The bundled data set at a small size with a narrow network, from scratch: minutes on two CPU cores.
    "quick": {
        "source": "minicity_game",
        "target": "minicity_camera",
        "height": 96,
        "width": 192,
        "batch_size": 2,
        "steps": 600,
        "learning_rate": 3e-4,
        "learning_rate_schedule": "cosine",
        "log_every": 10,
        "eval_every": 200,
        "save_every": 100,
        "eval_batch_size": 4,
    },
}

STEPS = {"gta5": 150_000, "synthia": 56_000}  # the authors' runs: six epochs of the source
DEFAULT_TARGET = {"gta5": "cityscapes", "synthia": "cityscapes", "minicity_game": "minicity_camera"}


def choose_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` settings over those of their preset, which is ``quick`` if neither source nor preset is given."""
    name = given.get("preset") or ("paper" if given.get("source") else "quick")
    of_preset = PRESETS.get(name, {})
    method = lookup(METHODS, of_preset | dict(given), "method")
    of_method = of_preset | method.PRESETS.get(name, {})
    network = lookup(NETWORKS, of_method | dict(given), "architecture")
    other_networks = {setting for other in NETWORKS.values() for setting in names(other.Settings)}
    foreign = other_networks - set(names(network.Settings))  # a preset's, if the user chose another network
    of_method = {setting: value for setting, value in of_method.items() if setting not in foreign}
    known = {*PRESETS, *method.PRESETS, *network.PRESETS}
    if name not in known:
        raise UserError(f"--preset={name} is unknown; expected one of {', '.join(sorted(known))}")
    values = {"preset": name, **network.PRESETS.get(name, {}), **of_method, **given}
    if given.get("source") and not given.get("target"):
        values.pop("target", None)  # the preset's goes with the preset's source
    if not values.get("source"):
        raise UserError(f"--preset={name} needs --source and its --source_dir; without both flags minicity is used")
    values.setdefault("target", DEFAULT_TARGET.get(values["source"]))
    if not values["target"]:
        raise UserError(f"--source={values['source']} needs --target: a built-in data set or a TOML file")
    by_source = {"steps": STEPS.get(values["source"], 20_000)} if "steps" not in values else {}
    by_source |= method.PRESETS_BY_SOURCE.get((name, values["source"]), {})
    return values | {key: value for key, value in by_source.items() if key not in given}
