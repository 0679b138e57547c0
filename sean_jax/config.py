"""Every setting with its default, the presets, and the checks; flags are made from the fields.

A setting takes the first of: its flag, the preset, what the data or the weights imply, the default here. The
defaults are the paper (``--preset=paper``); ``reference`` and ``quick`` list what they change.
"""

import dataclasses
import typing
from typing import Any, Literal

from sean_jax.errors import UserError


def _setting(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run. ``None`` stands for "decided by the data or the weights" until :func:`resolve`."""

    # What is run
    method: Literal["sean", "source_only"] = _setting("sean", "training objective; source_only is NoAdapt")
    preset: Literal["paper", "reference", "quick"] = _setting("paper", "the settings that flags do not name")
    steps: int | None = _setting(None, "optimisation steps; default by source: gta5 150000, synthia 56000, else 20000")
    seed: int = _setting(0, "seed of initial parameters, noise and the order of the data")
    selection: Literal["last", "oracle"] = _setting(
        "last", "checkpoint that counts; oracle: best teacher on the target's labelled validation split"
    )
    deterministic: bool = _setting(False, "ask XLA for bitwise reproducible GPU kernels (slower)")

    # Data
    source: str | None = _setting(None, "labelled data set: a built-in name or a TOML file")
    target: str | None = _setting(None, "unlabelled data set: a built-in name or a TOML file")
    source_dir: str | None = _setting(None, "folder of the source, as downloaded")
    target_dir: str | None = _setting(None, "folder of the target, as downloaded")
    source_split: str = _setting("train", "split of the source that is trained on")
    target_split: str = _setting("train", "split of the target that is adapted on, without its labels")
    eval_split: str | None = _setting(None, "split of the target that is scored, or none; default: the data set's own")
    classes: str | None = _setting(None, "label space: 19, 16, 13 or a TOML file; default: the source's")
    data_dir: str | None = _setting(None, "prepared data; default: $SEAN_JAX_DATA_DIR or ~/sean_jax_data")
    loader: Literal["tf_data", "grain"] = _setting("tf_data", "input engine; both give the same images in one order")
    height: int = _setting(512, "pixels; images are resized to height x width at preparation")
    width: int = _setting(1024, "pixels")
    batch_size: int = _setting(1, "images per domain and step, over all devices")

    # Network
    width_multiplier: float = _setting(1.0, "thins every hidden layer, for small machines")
    fc_channels: int = _setting(1024, "channels of fc6 and fc7, before the width multiplier")
    fc_dilation: int = _setting(4, "dilation of fc6 and fc7")
    classifier_branches: int = _setting(4, "classifier branches that are summed; the authors' code sums 2 of 4")
    attention: bool = _setting(True, "the attention module; without it H = F, and every position is kept")
    attention_pooling: Literal["average_2x2", "average_3x3"] = _setting("average_2x2", "D of equation 1")
    attention_upsampling: Literal["bilinear", "bilinear_align_corners"] = _setting("bilinear", "U of equation 1")
    attention_transform: Literal["after_upsampling", "before_upsampling"] = _setting(
        "after_upsampling", "where the sigmoid of T in equation 1 stands"
    )
    init_weights: str | None = _setting(None, "PyTorch weights to start from: .pth, .pt, .safetensors or .npz")
    initialization: Literal["pretrained", "scratch"] | None = _setting(
        None, "initial values of layers that no weights are loaded into; default: pretrained with --init_weights"
    )
    input_convention: Literal["bgr_mean", "rgb_normalized"] | None = _setting(
        None, "how pixels reach the network; default: what the weights want, else bgr_mean"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = _setting("tf32", "arithmetic of the network")

    # Memory: slower for less of it, the same step within float error
    accumulate_steps: int = _setting(
        1, "parts of a batch that each device takes one after the other; losses are means over the whole batch"
    )
    remat: bool = _setting(False, "compute the backbone's activations again in the backward pass")

    # Adaptation
    noise_std: float = _setting(25.5, "standard deviation of g's noise, in 0-255 intensities (0.1 of [0, 1])")
    noise_domains: Literal["source_and_target", "target"] = _setting("source_and_target", "which images get noise")
    random_flip: bool = _setting(False, "mirror images at random (neither paper nor authors' code)")
    consistency_weight: float = _setting(0.3, "lambda_con of equation 6")
    consistency_reduction: Literal["all_positions", "kept_positions"] = _setting(
        "all_positions", "mean of equation 4: over H*W, or over kept positions x classes (authors' code)"
    )
    consistency_resolution: Literal["output", "input"] = _setting(
        "output", "where the consistency loss is taken: the network's output (1/8) or the input's size"
    )
    attention_threshold: float = _setting(0.3, "tau_att of equation 5")
    ema_decay: float = _setting(0.99, "alpha of equation 7")
    ema_ramp: bool = _setting(False, "alpha is min(ema_decay, t/(t+10)) at step t")

    # Optimiser
    learning_rate: float = _setting(1e-5, "of Adam")
    learning_rate_schedule: Literal["constant", "cosine"] = _setting("constant", "over the steps of the run")
    learning_rate_final_fraction: float = _setting(0.05, "what cosine ends at, as a share of the learning rate")
    weight_decay: float = _setting(5e-5, "L2, added to the gradient before Adam's moments")

    # Rhythm, in steps
    log_every: int = _setting(50, "steps between lines of metrics.jsonl")
    eval_every: int = _setting(2000, "steps between evaluations of the teacher")
    save_every: int = _setting(1000, "steps between checkpoints")
    eval_batch_size: int = _setting(1, "images per device in evaluation")


ARCHITECTURE = (
    "width_multiplier",
    "fc_channels",
    "fc_dilation",
    "classifier_branches",
    "attention",
    "attention_pooling",
    "attention_upsampling",
    "attention_transform",
)

# Settings that may differ when a run is resumed: they say where things are, not what is computed.
PLACES = ("source_dir", "target_dir", "data_dir", "loader")

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # What the authors' code does. Validation images and oracle selection follow the target, see _from_target.
    "reference": {
        "attention_pooling": "average_3x3",
        "attention_upsampling": "bilinear_align_corners",
        "classifier_branches": 2,
        "noise_std": 0.1,
        "noise_domains": "target",
        "consistency_reduction": "kept_positions",
        "eval_every": 500,
    },
    # The embedded data set at a small size with a thin network, from scratch: minutes on two CPU cores.
    "quick": {
        "source": "minicity_game",
        "target": "minicity_camera",
        "height": 96,
        "width": 192,
        "batch_size": 2,
        "width_multiplier": 0.25,
        "steps": 600,
        "learning_rate": 3e-4,
        "learning_rate_schedule": "cosine",
        "random_flip": True,
        "ema_ramp": True,
        "log_every": 10,
        "eval_every": 200,
        "save_every": 100,
        "eval_batch_size": 4,
    },
}

REFERENCE_THRESHOLD = {"gta5": 0.1}  # the authors' threshold by source; 0.3 for all others
STEPS = {"gta5": 150_000, "synthia": 56_000}  # the authors' runs: six passes over the source
DEFAULT_TARGET = {"gta5": "cityscapes", "synthia": "cityscapes", "minicity_game": "minicity_camera"}


def choices(name: str) -> tuple[str, ...]:
    """The values a setting allows, empty if they are not enumerated."""
    hint = typing.get_type_hints(Config)[name]
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is Literal:
            return typing.get_args(part)
    return ()


def kind(name: str) -> type:
    """The plain type of a setting: bool, int, float or str."""
    hint = typing.get_type_hints(Config)[name]
    return next((t for t in (bool, int, float) if hint is t or t in typing.get_args(hint)), str)


def choose_preset(given: dict[str, Any]) -> dict[str, Any]:
    """``given`` settings over those of their preset, which is ``quick`` if neither source nor preset is given."""
    name = given.get("preset") or ("paper" if given.get("source") else "quick")
    values = {"preset": name} | PRESETS[name] | given
    if given.get("source") and not given.get("target"):
        values.pop("target", None)  # the preset's goes with the preset's source
    if not values.get("source"):
        raise UserError(f"--preset={name} needs --source and its --source_dir; without both flags minicity is used")
    values.setdefault("target", DEFAULT_TARGET.get(values["source"]))
    if not values["target"]:
        raise UserError(f"--source={values['source']} needs --target: a built-in data set or a TOML file")
    return values


def resolve(
    values: dict[str, Any],
    *,
    default_classes: str,
    evaluation_split: str | None,
    selection_split: str | None,
    input_convention: str | None,
) -> Config:
    """The complete configuration of a run.

    Args:
      values: settings that are decided, from :func:`choose_preset`.
      default_classes: the source's label space.
      evaluation_split, selection_split: of the target: the labelled split it is scored on, and the one on which
        a checkpoint may be selected; None where it has none.
      input_convention: what the initial weights want; None without weights.

    Raises:
      UserError: a value is out of range, or settings contradict each other.
    """
    values = dict(values)
    if values["preset"] == "reference":
        values.setdefault("attention_threshold", REFERENCE_THRESHOLD.get(values["source"], 0.3))
        if selection_split:  # the authors adapt and select on the validation split; said in every score
            values.setdefault("target_split", selection_split)
            values.setdefault("selection", "oracle")
    if values.get("selection") == "oracle" and not selection_split:
        raise UserError(
            f"--selection=oracle needs a labelled validation split, which {values['target']} has not; "
            "use --selection=last"
        )
    if values.get("selection") == "oracle" and values.setdefault("eval_split", selection_split) != selection_split:
        raise UserError(
            f"--selection=oracle chooses by the scores of split {selection_split}, got "
            f"--eval_split={values['eval_split']}; leave --eval_split out or use --selection=last"
        )
    values.setdefault("steps", STEPS.get(values["source"], 20_000))
    values.setdefault("classes", default_classes)
    values.setdefault("eval_split", evaluation_split)
    if values["eval_split"] == "none":
        values["eval_split"] = None
    values.setdefault("initialization", "pretrained" if values.get("init_weights") else "scratch")
    values.setdefault("input_convention", input_convention or "bgr_mean")
    config = Config(**values)
    _check(config)
    return config


def _check(config: Config) -> None:
    least = {
        "steps": 1, "batch_size": 1, "height": 16, "width": 16, "fc_channels": 1, "fc_dilation": 1,
        "classifier_branches": 1, "log_every": 1, "eval_every": 1, "save_every": 1, "eval_batch_size": 1, "seed": 0,
        "accumulate_steps": 1,
        "noise_std": 0, "consistency_weight": 0, "attention_threshold": 0, "ema_decay": 0, "learning_rate": 0,
        "learning_rate_final_fraction": 0, "weight_decay": 0, "width_multiplier": 1 / 64,
    }  # fmt: skip
    most = {
        "classifier_branches": 4, "attention_threshold": 1, "ema_decay": 1, "learning_rate_final_fraction": 1,
        "width_multiplier": 16, "seed": 2**32 - 1,
    }  # fmt: skip
    for field in dataclasses.fields(config):  # flags are checked already; what weights imply is not
        allowed, value = choices(field.name), getattr(config, field.name)
        if allowed and value not in allowed:
            raise UserError(f"--{field.name}={value} is unknown; expected one of {', '.join(allowed)}")
    for name, bound in least.items():
        if not getattr(config, name) >= bound:
            raise UserError(f"--{name}={getattr(config, name)} is too small; expected at least {bound:g}")
    for name, bound in most.items():
        if not getattr(config, name) <= bound:
            raise UserError(f"--{name}={getattr(config, name)} is too large; expected at most {bound:g}")
    if config.batch_size % config.accumulate_steps:
        raise UserError(
            f"--accumulate_steps={config.accumulate_steps} does not divide --batch_size={config.batch_size}; "
            "choose a divisor"
        )


def architecture(config: Config) -> dict[str, Any]:
    """The settings that make the network, as they travel with its weights."""
    return {name: getattr(config, name) for name in ARCHITECTURE}


def reference_architecture() -> dict[str, Any]:
    """The authors' network: what their checkpoints imply."""
    return architecture(Config(**PRESETS["reference"]))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Settings that differ and change what a run computes, as ``name: old → new``.

    Paths of TOML files do not count: :func:`sean_jax.run.directory.check_data` compares what the files say.
    """

    def same(name: str) -> bool:
        one, other = old.get(name), new.get(name)
        return one == other or (str(one).endswith(".toml") and str(other).endswith(".toml"))

    names = sorted((old.keys() | new.keys()) - set(PLACES))
    return [f"{name}: {old.get(name)!r} → {new.get(name)!r}" for name in names if not same(name)]
