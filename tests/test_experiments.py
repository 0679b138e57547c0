"""Tests of every experiment at smoke scale: complete tables, and reuse of finished training runs.

The scripts run in this process, where their training runs share compiled programs, on the network of :mod:`shallow`
and on few images of minicity.
"""

import contextlib
import importlib
import io
import itertools
import json
import sys

import numpy as np
import pytest
import streets
from commands import ROOT, run
from PIL import Image

from sean_jax.methods import METHODS
from sean_jax.minicity import DEFAULT_COUNTS
from sean_jax.run.plan import plan

tables = pytest.mark.xdist_group("tables")  # tests of a group share training runs
real = pytest.mark.xdist_group("real")


@pytest.fixture(scope="module")
def runs(session_dir):
    return session_dir / "experiments"


@pytest.fixture(scope="module")
def smoke() -> list[dict]:
    """The settings of both kinds of experiments at smoke scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "experiments"))
        return [importlib.import_module("cityscapes").SMOKE, importlib.import_module("camvid").SCALES["smoke"]]


@pytest.fixture(scope="module")
def experiment(runs, smoke, roads):
    """Runs a script at smoke scale with one seed and returns what it printed."""

    def start(name: str, *words: str, **flags) -> str:
        flags = {"scale": "smoke", "seeds": 0, "runs": runs, "loader": "grain"} | flags
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            for settings in smoke:
                patch.setitem(settings, "architecture", roads["architecture"])
                patch.delitem(settings, "width_multiplier")
                patch.delitem(settings, "fc_channels")
            for look in DEFAULT_COUNTS:
                patch.setitem(DEFAULT_COUNTS, look, {"train": 12, "test": 4})
            patch.syspath_prepend(str(ROOT / "experiments"))
            patch.setattr(sys, "argv", [name, *words, *(f"--{flag}={value}" for flag, value in flags.items())])
            importlib.import_module(name.removesuffix(".py")).main()
        return printed.getvalue()

    return start


@pytest.fixture(scope="module")
def camvid(session_dir):
    return streets.camvid(session_dir / "camvid")


def test_smoke_settings_are_those_of_a_thin_deeplab(smoke, roads):
    """As users run it; the other tests take another network."""
    for settings in smoke:
        config = plan(roads | {"architecture": "deeplab"} | settings).experiment.config
        assert (config.architecture, config.network_settings.width_multiplier) == ("deeplab", 1 / 32)


def _cells(file) -> dict[str, list[str]]:
    """The rows of the first Markdown table in a file."""
    table = itertools.dropwhile(lambda line: not line.startswith("|"), file.read_text().splitlines())
    lines = list(itertools.takewhile(lambda line: line.startswith("|"), table))
    return {line.split(" | ")[0].strip("| "): [c.strip("| ") for c in line.split(" | ")[1:]] for line in lines}


@tables
@pytest.mark.parametrize(("table", "source", "classes"), [("table1", "synthia", 16), ("table2", "gta5", 19)])
def test_tables_1_and_2_include_the_papers_rows(experiment, runs, table, source, classes):
    experiment(f"{table}.py", "--methods", "source_only", "sean")
    folder = runs / "smoke" / f"{source}-cityscapes"
    rows = _cells(folder / f"{table}.md")
    assert rows["SEAN (paper)"][classes] == {"table1": "37.5", "table2": "35.7"}[table]
    for name in ("source_only", "sean"):
        for network in ("student", "teacher"):
            stored = json.loads((folder / f"{name}-paper-seed0/scores/minicity_camera.json").read_text())[network]
            assert stored["protocol"] == str(classes)
            assert rows[f"{name}, paper, {network}"][classes] == f"{stored['mean_iou']:.1f}"
    text = (folder / f"{table}.md").read_text()
    assert "NoAdapt rows are Hoffman's baseline" in text
    assert "SEAN (paper): DeepLab-v2 on VGG-16 with attention, from ImageNet and PASCAL VOC." in text
    assert f"protocol {classes}, dataset minicity_camera" in text
    if table == "table1":  # SEAN's own row gives 43.6 over 13 classes, CCA's is a mean over 13 already
        assert rows["SEAN (paper)"][-1] == "43.6"
        assert rows["CCA (paper)"][-1] == "35.7"


def test_the_papers_rows_agree_with_their_means(monkeypatch):
    """A number that was copied wrongly would disagree with the mean of its row."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    paper = importlib.import_module("paper")

    for table, names in ((paper.TABLE_1, paper.CLASSES_16), (paper.TABLE_2, paper.CLASSES_19)):
        for row, (*values, mean) in table.items():
            assert len(values) == len(names)
            # The paper averages unrounded values: CDA's mean is 28.9 in the paper and 29.02 by its row.
            assert abs(np.mean([v for v in values if v is not None]) - mean) < 0.15, row


@tables
@pytest.mark.parametrize(
    ("table", "values"), [("table3", {"0.1": "36.3", "0.3": "37.5"}), ("table4", {"0": "34.6", "0.1": "36.2"})]
)
def test_sweeps_include_the_papers_values(experiment, runs, table, values):
    experiment(f"{table}.py")
    rows = _cells(runs / "smoke/synthia-cityscapes" / f"{table}.md")
    assert rows[{"table3": "lambda", "table4": "tau"}[table]] == list(values)
    assert rows["SEAN (paper)"] == list(values.values())
    assert len(rows["sean, paper, teacher"]) == 2


@tables
@pytest.mark.parametrize(("figure", "columns"), [("figure3", 4), ("figure4", 3)])
def test_figures_are_drawn(experiment, runs, figure, columns):
    experiment(f"{figure}.py")
    (file,) = runs.glob(f"smoke/*/{figure}.png")
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("L"), np.float32)
    # No column is blank.
    strips = np.array_split(pixels[pixels.shape[0] // 3 :], columns, axis=1)
    assert all(strip.std() > 10 for strip in strips)


@real
def test_camvid_day_to_dusk(experiment, runs, camvid):
    experiment("camvid_day_to_dusk.py", camvid_dir=camvid)
    results = runs / "camvid/smoke/results"
    rows = _cells(results / "day_to_dusk_methods.md")
    difference = "sean − source_only"
    assert list(rows) == ["method", "---", "source_only", "sean", "oracle", difference]
    gain = float(rows["sean"][1]) - float(rows["source_only"][1])
    assert abs(float(rows[difference][1]) - gain) < 0.11  # the difference of rounded numbers
    assert rows["oracle"][1] == "–"  # it is trained on labels of dusk_train, so it has no score there
    config = json.loads((runs / "camvid/smoke/day_to_dusk-oracle-seed0/config.json").read_text())["settings"]
    assert (config["source_split"], config["method"]) == ("first_half", "source_only")
    for part in ("consistency_weight", "attention_threshold", "diagnosis"):
        found = json.loads((results / f"day_to_dusk_{part}.json").read_text())["results"]
        assert len(found) == 2
        assert all(0 <= seeds["0"]["dusk second half"]["teacher"]["mean_iou"] <= 100 for seeds in found.values())
        assert (results / f"day_to_dusk_{part}.png").exists()
    assert str(camvid) not in (results / "day_to_dusk_methods.json").read_text()  # no folder of this machine

    # A second call trains nothing and gives the same numbers.
    before = (results / "day_to_dusk_methods.md").read_text()
    again = experiment("camvid_day_to_dusk.py", camvid_dir=camvid, part="methods")
    assert again.count("this run is already finished") == 3
    assert (results / "day_to_dusk_methods.md").read_text() == before


@real
def test_minicity_to_camvid(experiment, runs, camvid):
    experiment("minicity_to_camvid.py", camvid_dir=camvid)
    found = json.loads((runs / "camvid/smoke/results/minicity_to_camvid.json").read_text())["results"]
    assert list(found) == ["source_only", "sean", "oracle"]
    config = json.loads((runs / "camvid/smoke/minicity_to_day-sean-seed0/config.json").read_text())
    assert config["settings"]["source"] == "minicity_game"
    assert config["label_space"]["name"] == "camvid11"


@real
def test_attention_is_compared_with_right_and_wrong_pixels(experiment, runs, camvid, monkeypatch):
    experiment("minicity_to_camvid.py", camvid_dir=camvid)
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    attention = importlib.import_module("attention")
    assert attention.auroc(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, False, True, True])) == 0.75
    workdir = str(runs / "camvid/smoke/minicity_to_day-sean-seed0")
    shares = {threshold: attention.diagnose(workdir, threshold, None)[:3] for threshold in (0.0, 0.5)}
    kept, right, _ = shares[0.0]  # everything is in the mask
    assert kept == 1
    kept, inside, outside = np.nan_to_num(shares[0.5])
    np.testing.assert_allclose(kept * inside + (1 - kept) * outside, right)


@real
def test_idda_to_camvid_has_a_row_for_each_method_that_segments(experiment, runs, camvid, session_dir):
    idda = session_dir / "idda"
    for split in ("train", "val"):
        for i in range(3):
            streets.pair(idda / split / f"images/{i}.jpg", None, i, (24, 16))
            label = idda / split / f"labels/{i}.png"
            label.parent.mkdir(exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 12, (16, 24)).astype(np.uint8)).save(label)
    experiment("idda_to_camvid.py", "--rows", "source_only", "dacs", "oracle", camvid_dir=camvid, idda_dir=idda)
    rows = _cells(runs / "camvid/smoke/results/idda_to_camvid_methods.md")
    assert [row for row in rows if "−" not in row][2:] == ["source_only", "dacs", "oracle"]
    config = json.loads((runs / "camvid/smoke/idda_to_day-dacs-seed0/config.json").read_text())["settings"]
    assert config["init_weights"] == str(runs / "camvid/smoke/idda-start-seed0")
    assert config["source"].endswith("idda_camvid11.toml")
    assert config["dacs"]["ema_ramp"]
    experiment("idda_to_camvid.py", "--part", "source", "--rows", "rate 0.0001", camvid_dir=camvid, idda_dir=idda)
    assert "rate 0.0001" in _cells(runs / "camvid/smoke/results/idda_to_camvid_source.md")
    assert not (runs / "camvid/smoke/idda_to_day-rate_0.0001-seed0/evaluation.json").exists()  # no target label is read


def test_every_row_on_minicity_is_a_valid_quick_run(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    minicity = importlib.import_module("minicity")
    for row in minicity.ROWS.values():
        plan({**minicity.SETTINGS["quick"], **row, "data_dir": str(tmp_path)})


def test_results_name_no_folder_of_the_machine(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    camvid, study = importlib.import_module("camvid"), importlib.import_module("study")
    settings = {"source": camvid.DAY, "target": "cityscapes", "classes": camvid.DAY, "init_weights": "/home/vgg16.pth"}
    shown = camvid.shown(study.Study(ROOT, settings | {"source_dir": "/home/idda", "steps": 4}, {}))
    names = {"source": "camvid_day.toml", "target": "cityscapes", "classes": "camvid_day.toml"}
    assert shown == names | {"init_weights": "vgg16.pth", "steps": 4}


def test_rows_are_compared_by_the_seeds_that_both_have(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    study = importlib.import_module("study")

    def row(networks, *scores):
        return {
            seed: {"scores": {"val": {name: {"mean_iou": score} for name in networks}}, "kept_pixels": None}
            for seed, score in enumerate(scores)
        }

    two, heads = ("teacher", "student"), ("head_1", "head_2")
    results = {"source_only": row(two, 20.0, 30.0, 99.0), "mcd": row(heads, 26.0, 34.0), "oracle": row(two, 40.0, 50.0)}
    assert study.differences(results, "mcd", "source_only", "val") == [6.0, 4.0]
    assert study.gap_table(results, "val").splitlines()[2:] == ["| mcd | 25 % |"]
    assert "no gap" in study.gap_table(results | {"oracle": row(two, 19.0, 30.0)}, "val")


@tables
def test_methods_train_on_minicity(experiment, runs):
    """SEAN, CDA, CycleGAN, CyCADA and DACS train in tests of their own."""
    elsewhere = {"sean", "cda", "cyclegan", "cycada", "dacs"}
    methods = [name for name in METHODS if name not in elsewhere]
    experiment("minicity.py", "--start_steps=4", "--settings", "log_every=1", "--methods", *methods, "oracle")
    folder = runs / "minicity/smoke/start_4"
    rows = _cells(folder / "results/minicity.md")
    assert [row for row in rows if "−" not in row][2:] == ["start", *methods, "oracle"]
    for name in methods:
        settings = json.loads((folder / f"{name}-seed0/config.json").read_text())["settings"]
        assert settings["init_weights"] == str(folder / "start-seed0")
        assert settings["log_every"] == 1
        lines = (folder / f"{name}-seed0/metrics.jsonl").read_text().splitlines()
        losses = [value for line in lines for key, value in json.loads(line).items() if "loss" in key]
        assert losses
        assert np.isfinite(losses).all()


@tables
def test_cycada_trains_on_translated_images_and_adapts_what_it_trained(experiment, runs):
    experiment("cycada.py")
    folder = runs / "smoke/gta5-cityscapes/cycada-paper"
    rows = _cells(folder / "cycada.md")
    assert [row for row in rows if "published" not in row][2:] == ["pixels", "pixels and features"]
    assert rows["features (published)"][1] == "29.2"
    settings = {
        name: json.loads((folder / f"{name}-seed0/config.json").read_text())["settings"]
        for name in ("pixels", "pixels_and_features")
    }
    assert {found["source"] for found in settings.values()} == {str(folder / "translated-seed0/dataset.toml")}
    assert settings["pixels_and_features"]["init_weights"] == str(folder / "pixels-seed0")
    assert not (folder / "pixels_and_features-seed0/stages").exists()


def test_bad_input_is_reported_in_one_line(session_dir, runs):
    result = run(session_dir / "output", "table2.py", runs=runs)
    assert result.code == 1
    assert result.said() == ["--source_dir and --cityscapes_dir are needed, as downloaded; --scale=smoke does without"]
