import dataclasses
import types
from pathlib import Path

import data_fixtures as fixtures
import numpy as np
import pytest

from sean_jax import minicity
from sean_jax.data.catalogue import DATASETS, load_dataset, load_label_space
from sean_jax.data.dataset import Split, label_map, source_label_map
from sean_jax.data.folders import resolve_source_dir
from sean_jax.data.label_spaces import LABEL_SPACES, LabelSpace
from sean_jax.data.preparation.job import digest_of_files
from sean_jax.data.preparation.listing import find_pairs, list_examples
from sean_jax.errors import UserError
from sean_jax.run import plan

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "datasets"

# Written out from the published tables, not from the code: raw id → trainId; all other ids → 255.
CITYSCAPES = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
CITYSCAPES |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
SYNTHIA = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15}
SYNTHIA |= {20: 16, 12: 17, 11: 18}


def table(ids):
    return [ids.get(i, 255) for i in range(256)]


@pytest.mark.parametrize(
    ("name", "ids"),
    [(n, CITYSCAPES) for n in ("cityscapes", "gta5", "minicity_game", "minicity_camera")] + [("synthia", SYNTHIA)],
)
def test_all_256_ids_map_to_the_published_train_ids(name, ids):
    mapped = label_map(DATASETS[name], LABEL_SPACES["19"])
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == table(ids)


def test_16_classes_renumber_in_order_and_ignore_the_rest():
    order = [i for i in range(19) if i not in (9, 14, 16)]
    expected = {raw: order.index(train_id) for raw, train_id in SYNTHIA.items() if train_id in order}
    assert label_map(DATASETS["synthia"], LABEL_SPACES["16"]).tolist() == table(expected)


def test_merges_are_applied():
    space = LabelSpace("m", ("sign", "car"), ((0, 0, 0), (1, 1, 1)), (("traffic sign", "traffic light"), ("bus",)))
    assert label_map(DATASETS["cityscapes"], space).tolist() == table({19: 0, 20: 0, 26: 1, 28: 1})


def test_a_space_the_data_set_cannot_supply_is_refused_by_name():
    camvid = load_dataset(str(EXPERIMENTS / "camvid_day.toml"))
    with pytest.raises(UserError, match=r"camvid_day has no sidewalk, wall, .* which label space 19 asks for"):
        label_map(camvid, LABEL_SPACES["19"])
    assert label_map(camvid, LABEL_SPACES["19"], complete=False)[[0, 3, 4]].tolist() == [10, 0, 255]


def test_a_source_must_have_pixels_of_every_class():
    """SYNTHIA-RAND-CITYSCAPES lists ids of terrain, truck and train and never uses them."""
    synthia = DATASETS["synthia"]
    with pytest.raises(UserError) as error:
        source_label_map(synthia, LABEL_SPACES["19"])
    assert str(error.value) == (
        "data set synthia has no terrain, truck, train, which label space 19 asks for; use --classes=16 or merge "
        "classes in a TOML file"
    )
    for name in ("16", "13"):
        np.testing.assert_array_equal(
            source_label_map(synthia, LABEL_SPACES[name]), label_map(synthia, LABEL_SPACES[name])
        )
    others = [source_label_map(dataset, LABEL_SPACES["19"]) for name, dataset in DATASETS.items() if name != "synthia"]
    assert len(others) == 4


def test_a_class_without_pixels_may_be_merged_into_another(tmp_path):
    merged = tmp_path / "merged.toml"
    text = (
        'name = "merged"\n[[classes]]\nname = "{}"\nincludes = ["{}"]\n[[classes]]\nname = "truck"\nincludes = [{}]\n'
    )
    for class_name, other in (("vegetation", "terrain"), ("terrain", "vegetation")):
        merged.write_text(text.format(class_name, other, '"bus"'))
        table = source_label_map(DATASETS["synthia"], load_label_space(str(merged)))
        assert [int(table[label_id]) for label_id in (6, 16, 18, 19)] == [0, 0, 1, 1]
    merged.write_text(text.format("vegetation", "terrain", ""))
    with pytest.raises(UserError, match="synthia has no truck, which label space merged asks for"):
        source_label_map(DATASETS["synthia"], load_label_space(str(merged)))


def test_a_run_of_a_source_without_a_class_is_refused():
    given = {"source": "synthia", "target": "cityscapes", "source_dir": "/x", "target_dir": "/y"}
    with pytest.raises(UserError, match=r"synthia has no terrain, truck, train, .*use --classes=16"):
        plan.plan(given | {"classes": "19"})
    assert plan.plan(given | {"classes": "16"}).experiment.label_space == LABEL_SPACES["16"]
    # To score on it is possible: pixels are read as they are.
    assert plan.plan(given | {"source": "gta5", "target": "synthia", "classes": "19"}).target == DATASETS["synthia"]


def test_prepared_sets_and_runs_of_earlier_versions_are_recognised():
    """Frozen values: other digests would prepare everybody's data again and refuse to resume their runs."""
    digests = {name: digest_of_files(dataset, "train", [], []) for name, dataset in DATASETS.items()}
    assert digests == {
        "gta5": "933020be3d61",
        "synthia": "c99033dcb2e0",
        "cityscapes": "8dedfe08ad6d",
        "minicity_game": "74c60cf2736c",
        "minicity_camera": "109c7a5c0f48",
    }
    prepared = types.SimpleNamespace(metadata={"split": "train"}, names=["a.png"])
    assert plan.fingerprint(DATASETS["synthia"], prepared) == "b5cb7c09c066"


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("cityscapes", [*range(34), 255]),
        ("gta5", [*range(35), 255]),
        ("synthia", list(range(23))),
    ],
)
def test_valid_ids_are_the_published_ones(name, valid):
    assert sorted([*DATASETS[name].label_ids, *DATASETS[name].ignored_ids]) == valid


def test_what_is_scored_and_selected_on():
    facts = {n: (d.label_space.name, d.evaluation_split, d.selection_split) for n, d in DATASETS.items()}
    assert facts == {
        "gta5": ("19", "train", None),
        "synthia": ("16", "train", None),
        "cityscapes": ("19", "val", "val"),
        "minicity_game": ("19", "test", None),
        "minicity_camera": ("19", "test", None),
    }


def test_unknown_data_set_lists_the_valid_ones():
    with pytest.raises(UserError, match=r"'gta6'; expected one of gta5, synthia, cityscapes, minicity_game"):
        load_dataset("gta6")


# Pairs


def test_pairs_follow_names_not_places(tmp_path):
    fixtures.cityscapes(tmp_path, {"train": 4})
    # In sorted lists, this label without an image would shift every other label.
    fixtures.save(
        fixtures.label(0, 4, 4, (7,)), tmp_path / "gtFine/train/aachen/aachen_000000_000001_gtFine_labelIds.png"
    )
    examples, (problem,) = find_pairs(DATASETS["cityscapes"], "train", tmp_path, labels=True)
    assert problem.file.endswith("aachen_000000_000001_gtFine_labelIds.png")
    assert problem.message == "its image does not exist"
    assert len(examples) == 4
    assert [e.name for e in examples] == sorted(e.name for e in examples)
    for example in examples:
        name = str(example.image.relative_to(tmp_path)).replace("leftImg8bit", "gtFine", 1)
        assert str(example.label) == str(tmp_path / name.replace("leftImg8bit", "gtFine_labelIds"))


def test_left_over_files_of_other_systems_are_no_images(tmp_path):
    fixtures.gta5(tmp_path, 2)
    (tmp_path / "images/._00001.png").write_bytes(b"junk")
    assert [e.name for e in list_examples(DATASETS["gta5"], "train", tmp_path, True)] == [
        "images/00001.png",
        "images/00002.png",
    ]


def test_brackets_in_a_pattern_stand_for_themselves(tmp_path):
    split = Split("images [v2]/[a]*.png", f"{tmp_path}/labels [v2]/[a]*.png")
    mine = dataclasses.replace(DATASETS["gta5"], splits={"train": split})
    for folder in ("images [v2]", "labels [v2]", "images v", "labels v"):
        for name in ("[a]1", "[a]2" if "images" in folder else "[a]3", "a1"):
            fixtures.save(fixtures.image(0, 4, 4), tmp_path / f"{folder}/{name}.png")
    examples, problems = find_pairs(mine, "train", tmp_path, labels=True)
    assert [example.name for example in examples] == ["images [v2]/[a]1.png"]
    assert [Path(problem.file).name for problem in problems] == ["[a]2.png", "[a]3.png"]


def test_without_labels_no_label_path_is_formed(tmp_path):
    fixtures.cityscapes(tmp_path, {"train": 2})
    assert [e.label for e in list_examples(DATASETS["cityscapes"], "train", tmp_path, labels=False)] == [None, None]


def test_errors_of_the_listing(tmp_path):
    gta5 = DATASETS["gta5"]
    with pytest.raises(UserError, match=r"--source_dir=.*nowhere is not a folder; .*see \"Data\" in BUILD.md"):
        list_examples(gta5, "train", tmp_path / "nowhere", True)
    with pytest.raises(UserError, match=r"--target_dir=.* has no images/\*.png; expected .*labels/\*.png.*BUILD.md"):
        list_examples(gta5, "train", tmp_path, True, flag="--target_dir")
    with pytest.raises(UserError, match=r"gta5 has no split 'val'; expected one of train"):
        list_examples(gta5, "val", tmp_path, True)
    fixtures.gta5(tmp_path, 3)
    (tmp_path / "labels/00002.png").unlink()
    with pytest.raises(UserError, match=r"images/00002.png: its label .*labels/00002.png does not exist"):
        list_examples(gta5, "train", tmp_path, True)
    examples, problems = find_pairs(gta5, "train", tmp_path, True)
    assert (len(examples), len(problems)) == (2, 1)


def test_the_test_labels_of_cityscapes_are_not_used(tmp_path):
    fixtures.cityscapes(tmp_path, {"test": 1})
    with pytest.raises(UserError, match=r"'test' of cityscapes has no labels; splits with labels: train, val"):
        list_examples(DATASETS["cityscapes"], "test", tmp_path, labels=True)


@pytest.mark.skipif(not (fixtures.SHARED / "data/cityscapes").is_dir(), reason="../shared/data/cityscapes is not here")
def test_real_cityscapes_pairs_are_found():
    examples = list_examples(DATASETS["cityscapes"], "train", fixtures.SHARED / "data/cityscapes", labels=True)
    assert [Path(e.name).stem for e in examples] == [
        "aachen_000000_000019_leftImg8bit",
        "aachen_000001_000019_leftImg8bit",
    ]


# Folders


def test_data_set_without_folder_is_told_the_flag(tmp_path):
    with pytest.raises(UserError, match=r"gta5 needs --source_dir=FOLDER, which holds images/\*.png"):
        resolve_source_dir(DATASETS["gta5"], None, tmp_path, 8, 16)
    assert resolve_source_dir(DATASETS["gta5"], tmp_path, "unused", 8, 16) == tmp_path


def test_the_bundled_data_set_is_generated_once(tmp_path, monkeypatch):
    calls, counts = [], {"train": 2, "test": 1}

    def generate(look, root, *, height, width, splits, palette, progress):
        assert (palette[7], palette[26], len(palette)) == ((128, 64, 128), (0, 0, 142), 19)
        calls.append((look, height, width, splits))
        root.mkdir(parents=True)

    monkeypatch.setattr(minicity, "generate", generate)
    monkeypatch.setattr(minicity, "DEFAULT_COUNTS", {"minicity_game": counts})
    game = DATASETS["minicity_game"]
    first = resolve_source_dir(game, None, tmp_path, 8, 16)
    assert resolve_source_dir(game, None, tmp_path, 8, 16) == first
    assert resolve_source_dir(game, None, tmp_path, 16, 32) != first
    assert calls == [("minicity_game", 8, 16, counts), ("minicity_game", 16, 32, counts)]


def test_minicity_is_laid_out_as_described(tmp_path, monkeypatch):
    counts = {name: {"train": 2, "test": 1} for name in minicity.DEFAULT_COUNTS}
    monkeypatch.setattr(minicity, "DEFAULT_COUNTS", counts)
    for name in ("minicity_game", "minicity_camera"):
        root = resolve_source_dir(DATASETS[name], None, tmp_path, 16, 32, progress=False)
        assert [len(list_examples(DATASETS[name], split, root, labels=True)) for split in ("train", "test")] == [2, 1]
