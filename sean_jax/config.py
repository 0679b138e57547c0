"""The configuration of a run: the settings that every run has, and those of its method, network and optimiser.

A setting takes the first of: its flag, the preset (:mod:`sean_jax.presets`), what the data or the weights imply, its
default. The defaults are the paper's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from sean_jax.errors import UserError
from sean_jax.methods import METHODS
from sean_jax.models import NETWORKS
from sean_jax.settings import check, from_flat, names, setting, settings
from sean_jax.training.optimizers import OptimizerSettings

Sampling = Literal["uniform", "rare_classes"]


@settings
class RunSettings:
    """What is run."""

    method: str = setting("sean", "training objective; source_only is the baseline without adaptation")
    preset: str = setting("paper", "named set of defaults; flags override it")
    steps: int | None = setting(
        None, "optimisation steps; default by source: gta5 150000, synthia 56000, others 20000", least=1
    )
    seed: int = setting(0, "seed of initial parameters, noise and the order of the data", least=0, most=2**32 - 1)
    selection: Literal["last", "oracle"] = setting(
        "last", "checkpoint that counts; oracle: best score on the target's labelled validation split"
    )
    deterministic: bool = setting(False, "ask XLA for bitwise reproducible GPU kernels (slower)")


@settings
class DataSettings:
    """Which images are read, and how."""

    source: str | None = setting(None, "labelled data set: a built-in name or a TOML file")
    target: str | None = setting(None, "unlabelled data set: a built-in name or a TOML file")
    source_dir: str | None = setting(None, "folder of the source, as downloaded")
    target_dir: str | None = setting(None, "folder of the target, as downloaded")
    source_split: str = setting("train", "split of the source to train on")
    target_split: str = setting("train", "split of the target to adapt to, without its labels")
    eval_split: str | None = setting(None, "split of the target to score, or none; default: the data set's own")
    classes: str | None = setting(None, "label space: 19, 16, 13 or a TOML file; default: the source's")
    data_dir: str | None = setting(None, "folder of prepared data; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data")
    loader: Literal["tf_data", "grain"] = setting("tf_data", "input engine; both give the same images in one order")
    source_sampling: Sampling = setting("uniform", "each source image once an epoch, or rare classes more often")
    target_sampling: Sampling = setting("uniform", "likewise of the target, by what --init_weights predict")
    rare_class_temperature: float = setting(0.01, "of --source_sampling: smaller prefers rarer classes", least=1e-4)
    height: int = setting(512, "image height in pixels; images are resized at preparation", least=16)
    width: int = setting(1024, "image width in pixels", least=16)
    batch_size: int = setting(1, "images per domain and step, over all devices", least=1)


@settings
class NetworkSettings:
    """Which network, where it starts, and its arithmetic."""

    architecture: str = setting("deeplab", "network")
    init_weights: str | None = setting(
        None, "weights to start from: a .pth, .pt, .safetensors or .npz file, or a run directory"
    )
    initialization: Literal["pretrained", "scratch"] | None = setting(
        None, "initial values of layers that no weights are loaded into; default: pretrained with --init_weights"
    )
    input_convention: Literal["bgr_mean", "rgb_normalized"] | None = setting(
        None, "input normalisation; default: what the weights were trained with, else bgr_mean"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = setting("tf32", "arithmetic of the network")


@settings
class MemorySettings:
    """Less memory for more time; the same step within rounding."""

    accumulate_steps: int = setting(
        1, "parts of a batch that each device processes in turn; losses are means over the whole batch", least=1
    )
    remat: bool = setting(False, "recompute activations in the backward pass")


@settings
class IntervalSettings:
    """How often a run reports."""

    log_every: int = setting(50, "steps between lines of metrics.jsonl", least=1)
    eval_every: int = setting(2000, "steps between evaluations", least=1)
    save_every: int = setting(1000, "steps between checkpoints", least=1)
    eval_batch_size: int = setting(1, "images per device in evaluation", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(IntervalSettings, MemorySettings, NetworkSettings, DataSettings, RunSettings):
    """The settings of a run. ``None`` stands for "decided by the data or the weights" until :func:`resolve`.

    Attributes:
      method_settings: of ``METHODS[method].Settings``.
      network_settings: of ``NETWORKS[architecture].Settings``.
    """

    method_settings: Any
    network_settings: Any
    optimizer_settings: OptimizerSettings

    def nested(self) -> dict[str, Any]:
        """The settings as they stand in ``config.json``: common ones flat, others under their owner's name."""
        common = {name: getattr(self, name) for name in COMMON}
        return common | {name: dataclasses.asdict(part) for name, part in self._parts().items()}

    def flat(self) -> dict[str, Any]:
        """All settings by name."""
        return flatten(self.nested())

    def _parts(self) -> dict[str, Any]:
        return {
            self.method: self.method_settings,
            self.architecture: self.network_settings,
            "optimizer": self.optimizer_settings,
        }


_COMMON_GROUPS = (RunSettings, DataSettings, NetworkSettings, MemorySettings, IntervalSettings)
COMMON = tuple(name for group in _COMMON_GROUPS for name in names(group))

# Heading → settings class, for flags and their help.
GROUPS: dict[str, type] = {
    "Run": RunSettings,
    "Data": DataSettings,
    "Network": NetworkSettings,
    **{f"Network {name}": network.Settings for name, network in NETWORKS.items()},
    "Optimizer": OptimizerSettings,
    "Memory": MemorySettings,
    "Intervals": IntervalSettings,
    **{f"Method {name}": method.Settings for name, method in METHODS.items()},
}

# Settings that may differ when a run is resumed: they say where things are, how often the run reports, and how much
# memory it takes, not what is computed.
PLACES = ("source_dir", "target_dir", "data_dir", "loader", "init_weights", "translator")
MAY_CHANGE = (*PLACES, *names(IntervalSettings), *names(MemorySettings))


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, from the nested form of ``config.json``."""
    common = {name: value for name, value in nested.items() if not isinstance(value, dict)}
    return common | {n: v for part in nested.values() if isinstance(part, dict) for n, v in part.items()}


def from_flat_settings(values: Mapping[str, Any]) -> Config:
    """A configuration from settings by name; missing ones take their defaults.

    Raises:
      UserError: an unknown method, network or setting, or a setting of another method or network.
    """
    method, network = lookup(METHODS, values, "method"), lookup(NETWORKS, values, "architecture")
    parts = (method.Settings, network.Settings, OptimizerSettings)
    known = {*COMMON, *(name for part in parts for name in names(part))}
    for name in values:
        if name not in known:
            raise UserError(_foreign(name, method.Settings, values))
    return Config(
        **{name: values[name] for name in COMMON if name in values},
        method_settings=from_flat(method.Settings, values),
        network_settings=from_flat(network.Settings, values),
        optimizer_settings=from_flat(OptimizerSettings, values),
    )


def check_values(config: Config) -> Config:
    """Returns the configuration; raises a UserError if the type or the value of a setting is not allowed."""
    for part in (config, config.method_settings, config.network_settings, config.optimizer_settings):
        check(part)
    return config


def lookup(table: Mapping[str, Any], values: Mapping[str, Any], key: str) -> Any:
    """The entry of ``table`` that the setting ``key`` names; a UserError lists the valid names."""
    name = values.get(key) or getattr(Config, key)
    if name not in table:
        raise UserError(f"--{key}={name} is unknown; expected one of {', '.join(table)}")
    return table[name]


def _foreign(name: str, method_settings: type, values: Mapping[str, Any]) -> str:
    owners = {
        "--method": [owner for owner, method in METHODS.items() if name in names(method.Settings)],
        "--architecture": [owner for owner, network in NETWORKS.items() if name in names(network.Settings)],
    }
    for flag, of in owners.items():
        if of:
            own = values.get(flag[2:]) or getattr(Config, flag[2:])
            return f"--{name} is a setting of {flag}={' or '.join(of)}, and {flag} is {own}; leave --{name} out"
    return f"there is no setting {name}; expected one of {', '.join((*COMMON, *names(method_settings)))}, …"


def resolve(
    values: Mapping[str, Any],
    *,
    default_classes: str,
    evaluation_split: str | None,
    selection_split: str | None,
    input_convention: str | None,
) -> Config:
    """The complete configuration of a run.

    Args:
      values: settings that are decided, from :func:`sean_jax.presets.choose_preset`.
      default_classes: the source's label space.
      evaluation_split, selection_split: of the target: the labelled split it is scored on, and the one on which
        a checkpoint may be selected; None where it has none.
      input_convention: what the initial weights want; None without weights.

    Raises:
      UserError: a value is out of range, or settings contradict each other.
    """
    values, method = dict(values), lookup(METHODS, values, "method")
    if not method.SEGMENTS:  # no network to score
        evaluation_split = selection_split = None
        values["eval_split"] = "none"
    if values["preset"] == "reference" and selection_split:
        # The authors adapt and select on the validation split; every score says so.
        values.setdefault("target_split", selection_split)
        values.setdefault("selection", "oracle")
    if values.get("selection") == "oracle" and not method.SEGMENTS:
        raise UserError(f"--selection=oracle: {values['method']} trains no segmentation network to score; leave it out")
    if values.get("selection") == "oracle" and not selection_split:
        raise UserError(
            f"--selection=oracle needs a labelled validation split, and {values['target']} has none; "
            "use --selection=last"
        )
    if values.get("selection") == "oracle" and values.setdefault("eval_split", selection_split) != selection_split:
        raise UserError(
            f"--selection=oracle chooses by the scores of split {selection_split}, got "
            f"--eval_split={values['eval_split']}; leave --eval_split out or use --selection=last"
        )
    values.setdefault("classes", default_classes)
    values.setdefault("eval_split", evaluation_split)
    if values["eval_split"] == "none":
        values["eval_split"] = None
    values.setdefault("initialization", "pretrained" if values.get("init_weights") else "scratch")
    values.setdefault("input_convention", input_convention or "bgr_mean")
    config = check_values(from_flat_settings(values))
    if config.batch_size % config.accumulate_steps:
        raise UserError(
            f"--accumulate_steps={config.accumulate_steps} does not divide --batch_size={config.batch_size}; "
            "choose a divisor"
        )
    if min(config.height, config.width) < method.MIN_SIZE:
        raise UserError(
            f"--height={config.height} --width={config.width}: {config.method} needs images of at least "
            f"{method.MIN_SIZE}x{method.MIN_SIZE} pixels"
        )
    if config.accumulate_steps > 1 and not method.ACCUMULATES:
        raise UserError(
            f"--accumulate_steps={config.accumulate_steps}: a step of {config.method} cannot be divided into parts; "
            "choose a smaller --batch_size"
        )
    return config


def describe_settings() -> dict[str, tuple[Any, str]]:
    """Default and help text of every setting, by name; of a name that several methods share, those of the first."""
    described: dict[str, tuple[Any, str]] = {}
    for group in GROUPS.values():
        for field in dataclasses.fields(group):
            described.setdefault(field.name, (field.default, field.metadata["help"]))
    return described


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings that differ and change what a run computes, as ``name: old → new``.

    Other ``steps`` change nothing of what was computed if all schedules are constant: the run goes on or ends earlier.

    Args:
      old, new: settings by name. Paths of TOML files do not count: what the files say is compared by
        :func:`sean_jax.run.directory.check_data`.
    """

    def same(name: str) -> bool:
        one, other = old.get(name), new.get(name)
        return one == other or (str(one).endswith(".toml") and str(other).endswith(".toml"))

    changed = [name for name in sorted((old.keys() | new.keys()) - set(MAY_CHANGE)) if not same(name)]
    shown = {name: f"{name}: {old.get(name)!r} → {new.get(name)!r}" for name in changed}
    if "steps" in shown and isinstance(new.get("steps"), int):
        method = METHODS.get(str(new.get("method")))
        spread = method.SPREAD_OVER_STEPS if method else ()
        depending = [
            f"{n}={v}" for n, v in new.items() if (n.endswith("_schedule") and v != "constant") or (n in spread and v)
        ]
        if depending:
            shown["steps"] += f", on which {', '.join(depending)} depends: only runs of a constant rate can go on"
        else:
            del shown["steps"]
    return list(shown.values())
