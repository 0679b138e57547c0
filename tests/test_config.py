"""Tests of the configuration: presets, defaults, precedence of flags, and errors."""

import pytest

from sean_jax.config import GROUPS, Config, describe_settings, differences, from_flat_settings, resolve
from sean_jax.errors import UserError
from sean_jax.presets import PRESETS, choose_preset
from sean_jax.run.plan import plan
from sean_jax.settings import choices, kind, names

# Setting, value of preset "paper", value of preset "reference" (the authors' code on GTA-5 → Cityscapes).
TABLE = [
    ("attention_pooling", "average_2x2", "average_3x3"),
    ("attention_upsampling", "bilinear", "bilinear_align_corners"),
    ("attention_transform", "after_upsampling", "after_upsampling"),
    ("classifier_branches", 4, 2),
    ("fc_channels", 1024, 1024),
    ("fc_dilation", 4, 4),
    ("noise_domains", "source_and_target", "target"),
    ("noise_std", 25.5, 0.1),
    ("consistency_reduction", "all_positions", "kept_positions"),
    ("consistency_resolution", "output", "output"),
    ("target_split", "train", "val"),
    ("selection", "last", "oracle"),
    ("attention_threshold", 0.3, 0.1),
]
# Values of both presets.
COMMON = {
    "consistency_weight": 0.3, "ema_decay": 0.99, "ema_ramp": False, "learning_rate": 1e-5,
    "learning_rate_schedule": "constant", "learning_rate_final_fraction": 0.05, "optimizer": "adam", "momentum": 0.9,
    "weight_decay": 5e-5, "batch_size": 1, "height": 512, "width": 1024,
    "random_flip": False, "input_convention": "bgr_mean", "steps": 150_000, "classes": "19", "eval_split": "val",
    "width_multiplier": 1.0,
}  # fmt: skip
# Setting, smallest and largest value allowed; None: unbounded.
BOUNDS = [
    ("noise_std", 0.0, None), ("consistency_weight", 0.0, None), ("attention_threshold", 0.0, 1.0),
    ("ema_decay", 0.0, 1.0), ("learning_rate", 0.0, None), ("learning_rate_final_fraction", 0.0, 1.0),
    ("momentum", 0.0, 1.0), ("weight_decay", 0.0, None), ("width_multiplier", 1 / 64, 16.0),
    ("classifier_branches", 1, 4), ("fc_channels", 1, None), ("fc_dilation", 1, None), ("seed", 0, 2**32 - 1),
    ("steps", 1, None), ("height", 16, None), ("width", 16, None), ("batch_size", 1, None), ("log_every", 1, None),
    ("eval_every", 1, None), ("save_every", 1, None), ("eval_batch_size", 1, None),
]  # fmt: skip


def config(**given) -> Config:
    return plan({"source": "gta5", "data_dir": "/nowhere"} | given).experiment.config


def settings(**given) -> dict:
    return config(**given).flat()


@pytest.mark.parametrize(("setting", "paper", "reference"), TABLE, ids=[row[0] for row in TABLE])
def test_presets_follow_the_table(setting, paper, reference):
    assert settings()[setting] == paper
    assert settings(preset="paper")[setting] == paper
    assert settings(preset="reference")[setting] == reference


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_values_common_to_both_presets(preset):
    found = settings(preset=preset)
    assert {name: found[name] for name in COMMON} == COMMON


def test_presets_differ_in_nothing_else():
    paper, reference = (settings(preset=preset) for preset in ("paper", "reference"))
    differing = {name for name in paper if paper[name] != reference[name]}
    assert differing == {row[0] for row in TABLE if row[1] != row[2]} | {"preset", "eval_every"}
    assert reference["eval_every"] == 500


def test_reference_follows_the_source_and_the_target():
    synthia = config(preset="reference", source="synthia")
    assert (synthia.method_settings.attention_threshold, synthia.steps, synthia.classes) == (0.3, 56_000, "16")
    assert (synthia.target, synthia.target_split, synthia.selection) == ("cityscapes", "val", "oracle")
    # The target has no labelled validation split.
    minicity = config(preset="reference", target="minicity_camera")
    assert (minicity.target_split, minicity.selection, minicity.method_settings.attention_threshold) == (
        "train",
        "last",
        0.1,
    )
    game = config(preset="reference", source="minicity_game")
    assert (game.method_settings.attention_threshold, game.steps) == (0.3, 20_000)


def test_flags_override_the_preset_and_the_data_set():
    given = {"attention_threshold": 0.5, "selection": "last", "target_split": "train", "noise_std": 3.0, "steps": 7}
    found = settings(preset="reference", **given, eval_split="train")
    assert {name: found[name] for name in given} == given
    assert (found["eval_split"], found["classifier_branches"]) == ("train", 2)
    assert config(eval_split="none").eval_split is None


def test_preset_follows_the_source():
    quick = plan({"data_dir": "/nowhere"}).experiment.config
    assert (quick.preset, quick.source, quick.target) == ("quick", "minicity_game", "minicity_camera")
    parts = {"width_multiplier": 0.25, "random_flip": True, "ema_ramp": True}  # settings of the network and the method
    for name, value in (PRESETS["quick"] | parts).items():
        assert quick.flat()[name] == value
    assert config().preset == "paper"
    with pytest.raises(UserError, match="--preset=reference needs --source"):
        choose_preset({"preset": "reference"})
    with pytest.raises(UserError, match=r"--source=mine\.toml needs --target"):
        choose_preset({"source": "mine.toml"})


def test_initialisation_and_input_convention_follow_the_weights():
    values = {"preset": "paper", "source": "gta5", "target": "cityscapes"}
    facts = {"default_classes": "19", "evaluation_split": "val", "selection_split": "val"}
    scratch = resolve(values, **facts, input_convention=None)
    assert (scratch.initialization, scratch.input_convention) == ("scratch", "bgr_mean")
    loaded = resolve(values | {"init_weights": "x.pth"}, **facts, input_convention="rgb_normalized")
    assert (loaded.initialization, loaded.input_convention) == ("pretrained", "rgb_normalized")
    flag = resolve(values | {"input_convention": "bgr_mean"}, **facts, input_convention="rgb_normalized")
    assert flag.input_convention == "bgr_mean"
    with pytest.raises(UserError, match="--input_convention=lab is unknown; expected one of bgr_mean"):
        resolve(values, **facts, input_convention="lab")


def test_all_settings_but_paths_are_resolved():
    undecided = {name for name, value in settings().items() if value is None}
    assert undecided == {"source_dir", "target_dir", "init_weights"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "--batch_size=0 is too small; expected at least 1"),
        ({"steps": -1}, "--steps=-1 is too small"),
        ({"width": 15}, "--width=15 is too small; expected at least 16"),
        ({"seed": 2**32}, "--seed=4294967296 is too large"),
        ({"ema_decay": 1.01}, r"--ema_decay=1\.01 is too large; expected at most 1"),
        ({"classifier_branches": 5}, "expected at most 4"),
        ({"attention_threshold": float("nan")}, "--attention_threshold=nan"),
        ({"width_multiplier": 0.0}, r"--width_multiplier=0\.0 is too small"),
        ({"classes": "16", "source": "minicity_game", "eval_split": "nowhere"}, "no split 'nowhere'"),
    ],
)
def test_values_out_of_range_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        config(**given)


@pytest.mark.parametrize(("name", "least", "most"), BOUNDS, ids=[row[0] for row in BOUNDS])
def test_bounds_are_inclusive(name, least, most):
    step = 1 if isinstance(least, int) else 1e-3
    assert settings(**{name: least})[name] == least
    with pytest.raises(UserError, match=f"--{name}=.* is too small"):
        config(**{name: least - step})
    if most is not None:
        assert settings(**{name: most})[name] == most
        with pytest.raises(UserError, match=f"--{name}=.* is too large"):
            config(**{name: most + step})


def test_oracle_selection_needs_a_labelled_validation_split():
    with pytest.raises(UserError, match="needs a labelled validation split, and minicity_camera has none"):
        config(target="minicity_camera", selection="oracle")


def test_all_settings_have_a_type_and_choices():
    found = {name: (kind(group, name), choices(group, name)) for group in GROUPS.values() for name in names(group)}
    assert found["steps"] == (int, ())
    assert found["learning_rate"] == (float, ())
    assert found["random_flip"] == (bool, ())
    assert found["init_weights"] == (str, ())
    assert found["initialization"] == (str, ("pretrained", "scratch"))
    assert all(text for _, text in describe_settings().values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": "source_only", "attention_threshold": 0.1},
            "--attention_threshold is a setting of --method=sean or dacs, and --method is source_only; leave",
        ),
        ({"attention_treshold": 0.1}, "there is no setting attention_treshold; expected one of method, preset"),
        ({"method": "dann"}, "--method=dann is unknown; expected one of sean, source_only"),
        ({"architecture": "unet"}, "--architecture=unet is unknown; expected one of deeplab"),
        ({"preset": "papre"}, "--preset=papre is unknown; expected one of best, paper, published, quick, reference"),
    ],
)
def test_unknown_settings_and_those_of_another_method_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        config(**given)


@pytest.mark.parametrize("method", ["source_only", "cyclegan"])
def test_target_sampling_needs_a_method_that_segments_the_target(method):
    with pytest.raises(UserError, match=f"{method} does not segment the target"):
        plan({"method": method, "target_sampling": "rare_classes", "data_dir": "/nowhere"})


def test_a_run_has_only_the_settings_of_its_method():
    found = settings(method="source_only")
    assert "consistency_weight" not in found
    assert found["ema_decay"] == 0.99
    assert from_flat_settings(found) == config(method="source_only")


def test_differences_show_old_and_new_values_and_ignore_paths():
    old = {"seed": 0, "steps": 5, "data_dir": "/a", "gone": 1}
    assert differences(old, old) == []
    found = differences(old, {"seed": 1, "steps": 5, "data_dir": "/b"})
    assert found == ["gone: 1 → None", "seed: 0 → 1"]


def test_differences_ignore_the_folder_of_toml_files():
    """The fingerprints of the data and the label space cover their content."""
    old = {"source": "mine.toml", "target": "cityscapes"}
    assert differences(old, {"source": "/moved/mine.toml", "target": "cityscapes"}) == []
    assert differences(old, {"source": "gta5", "target": "cityscapes"}) == ["source: 'mine.toml' → 'gta5'"]


@pytest.mark.parametrize(
    "content", ["", "name = ", 'name = "x"\n', '[[classes]]\nname = "a"\n[[classes]]\nname = "a"\n']
)
def test_a_bad_label_space_file_is_reported_in_one_line(tmp_path, content):
    path = tmp_path / "space.toml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"space\.toml") as error:
        config(classes=str(path))
    assert "\n" not in str(error.value)


def test_oracle_selection_uses_the_validation_split():
    assert config(preset="reference").eval_split == "val"
    for split in ("train", "none"):
        with pytest.raises(UserError, match=f"chooses by the scores of split val, got --eval_split={split}"):
            config(selection="oracle", eval_split=split)


def test_the_default_target_follows_the_source():
    assert config(preset="quick").target == "cityscapes"
    assert choose_preset({"preset": "quick"})["target"] == "minicity_camera"


def test_a_preset_leaves_out_settings_of_a_network_that_the_user_replaced():
    given = {"method": "mcd", "preset": "published", "source": "gta5"}
    assert choose_preset(given)["upsampling"] == "learned"
    values = choose_preset(given | {"architecture": "deeplab"})
    assert "upsampling" not in values
    assert values["optimizer"] == "sgd"


def test_runs_whose_schedule_spans_their_steps_have_no_other_length():
    """CycleGAN's learning rate falls over the run, whatever --learning_rate_schedule says."""
    old = from_flat_settings({"method": "cyclegan", "steps": 10}).flat()
    (found,) = differences(old, old | {"steps": 20})
    assert found.startswith("steps: 10 → 20, on which decay_epochs=100 depends")
    constant = old | {"decay_epochs": 0}
    assert differences(constant, constant | {"steps": 20}) == []
