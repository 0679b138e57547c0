from pathlib import Path

import data_fixtures as fixtures
import numpy as np
import pytest
from PIL import Image

from sean_jax.data.catalogue import DATASETS, load_dataset, load_label_space
from sean_jax.data.dataset import label_map
from sean_jax.data.pipeline import evaluation_examples
from sean_jax.data.preparation.builder import prepare
from sean_jax.data.preparation.listing import find_pairs, list_examples
from sean_jax.errors import UserError

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "datasets"


def table(ids):
    return [ids.get(i, 255) for i in range(256)]


GOOD = """
name = "mine"
ignored_ids = [9]
[splits.train]
images = "a/*/?.png"
labels = "b/*/?.png"
[splits.new]
images = "c/*.jpg"
[[classes]]
name = "car"
ids = [3, 4]
[[classes]]
name = "tree"
id = 5
color = [1, 2, 3]
includes = ["vegetation"]
"""


def write(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return str(file)


def test_toml_description(tmp_path):
    file = write(tmp_path, GOOD)
    mine = load_dataset(file)
    assert mine.label_ids == {3: "car", 4: "car", 5: "tree"}
    assert (mine.evaluation_split, mine.selection_split) == ("train", None)
    assert mine.splits["new"].labels is None
    assert load_label_space(file) == mine.label_space
    assert label_map(mine, mine.label_space).tolist() == table({3: 0, 4: 0, 5: 1})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "mine"', 'name = "My set"', r"mine.toml, line 2: name is 'My set'; expected lower-case"),
        ("ignored_ids = [9]", "ignored_ids = [9", r"mine.toml is not valid TOML: .*line 4"),
        ("ignored_ids", "ignore_ids", r"line 3: unknown key 'ignore_ids'; expected one of .*ignored_ids"),
        ("[9]", "[5]", r"line 14: id 5 is in ignored_ids and in class 'tree'"),
        ("[9]", "[300]", r"line 3: ignored_ids is \[300\]; expected a list of ids, each 0 to 255"),
        ("id = 5", "id = 4", r"line 14: id 4 is in class 'car' and in class 'tree'"),
        ("id = 5\n", "", r"line 12: class 'tree' needs either id = NUMBER or ids"),
        ("[1, 2, 3]", "[1, 2]", r"line 15: color is \[1, 2\]; expected \[red, green, blue\]"),
        ("b/*/?.png", "b/*.png", r"line 6: images has the wildcards \['\*', '\?'\] and labels \['\*'\]"),
        ("b/*/?.png", "../*/?.png", r"line 6: labels is .* without '~', '\.\.'"),
        ("c/*.jpg", "c/1.jpg", r"line 8: images is 'c/1.jpg'; expected a pattern with '\*'"),
        ("[splits.new]\nimages", "[splits.new]\nimage", r"line 8: unknown key 'image'; expected one of images, labels"),
        ('"c/*.jpg"', '"c/*.jpg"\nframes = [3, 3]', r"line 9: frames is \[3, 3\]; expected \[FIRST, END\]"),
        ('"c/*.jpg"', '"c/*.jpg"\nframes = [0, true]', r"line 9: frames is \[0, True\]; expected"),
        (
            "ignored_ids",
            'evaluation_split = "new"\nignored_ids',
            r"line 3: evaluation_split is 'new'; expected .*train",
        ),
        (
            "ignored_ids",
            'label_format = "bgr"\nignored_ids',
            r"line 3: label_format is 'bgr'; expected one of ids, red16, rgb",
        ),
        ('name = "tree"', 'name = "car"', r"line 13: class 'car' appears for the second time"),
        ("[[classes]]", "[[class]]", r"unknown key 'class'"),
    ],
)
def test_errors_of_a_description_name_line_and_remedy(tmp_path, old, new, message):
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(UserError, match=message) as error:
        load_dataset(write(tmp_path, text))
    assert "\n" not in str(error.value)


COLORS = """
name = "painted"
label_format = "rgb"
ignored_colors = [[0, 0, 0], [9, 9, 9]]
[splits.train]
images = "photos/*.png"
labels = "drawings/*_L.png"
[splits.val]
images = "photos_val/*.png"
labels = "drawings/*_L.png"
[splits.new]
images = "new/*.png"
[[classes]]
name = "road"
colors = [[10, 20, 30], [11, 20, 30]]
[[classes]]
name = "sky"
color = [40, 50, 60]
"""


def painted(root):
    """Images and colour labels in separate trees, the labels of two splits in one folder."""
    table = np.array([[10, 20, 30], [11, 20, 30], [40, 50, 60], [0, 0, 0], [9, 9, 9]], np.uint8)
    for i, folder in enumerate(("photos", "photos", "photos_val", "new")):
        fixtures.save(fixtures.image(i, 20, 12), root / f"{folder}/{i}.png")
        if folder != "new":
            fixtures.save(table[fixtures.label(i, 20, 12, (0, 1, 2, 3, 4))], root / f"drawings/{i}_L.png")
    return root


def test_colour_labels_merge_and_ignore(tmp_path):
    mine = load_dataset(write(tmp_path, COLORS))
    assert mine.label_space.palette == ((10, 20, 30), (40, 50, 60))
    root = painted(tmp_path / "data")
    common = {"source_dir": root, "data_dir": tmp_path / "prepared", "height": 12, "width": 20, "progress": False}
    prepared = prepare(mine, split="train", labels="original", **common)
    assert prepared.metadata["label_encoding"] == "rgb"
    table = label_map(mine, mine.label_space)
    examples = list(evaluation_examples(prepared, table, loader="grain"))
    assert [name for name, _, _ in examples] == ["photos/0.png", "photos/1.png"]
    for i, (_, _, label) in enumerate(examples):
        expected = np.array([0, 0, 1, 255, 255])[fixtures.label(i, 20, 12, (0, 1, 2, 3, 4))]
        np.testing.assert_array_equal(label, expected)
    assert prepare(mine, split="val", labels="resized", **common).names == ["photos_val/2.png"]
    assert prepare(mine, split="new", labels="none", **common).names == ["new/3.png"]
    fixtures.save(np.full((12, 20, 3), 12, np.uint8), root / "drawings/1_L.png")
    with pytest.raises(
        UserError, match=r"1_L.png: colours \(12, 12, 12\) are outside the table of painted; .* blended"
    ):
        prepare(mine, split="train", labels="original", **common)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("color = [40, 50, 60]", "color = [10, 20, 30]", r"line 18: colour \[10, 20, 30\] appears for the second"),
        ("color = [40, 50, 60]", "color = [9, 9, 9]", r"line 18: colour \[9, 9, 9\] appears for the second time"),
        ("color = [40, 50, 60]", "id = 3", r"line 18: id has no meaning with label_format 'rgb'"),
        ("color = [40, 50, 60]", "", r"line 16: class 'sky' needs color or colors"),
        ("[[10, 20, 30], [11, 20, 30]]", "[[10, 20]]", r"line 15: colors is \[\[10, 20\]\]; expected \[red, green"),
        ("[9, 9, 9]", "9", r"line 4: ignored_colors is .*; expected \[red, green, blue\]"),
        ("colors = [[10", "color = [1, 2, 3]\ncolors = [[10", r"line 16: expected either color = .* or colors"),
        ("photos/", "/photos/", r"line 6: images is '/photos/\*.png'; expected a path inside the folder"),
    ],
)
def test_errors_of_a_description_of_colours(tmp_path, old, new, message):
    text = COLORS.replace(old, new)
    assert text != COLORS
    with pytest.raises(UserError, match=message):
        load_dataset(write(tmp_path, text))


def test_colour_labels_may_have_a_palette(tmp_path):
    mine, root = load_dataset(write(tmp_path, COLORS)), painted(tmp_path / "data")
    common = {"source_dir": root, "height": 12, "width": 20, "progress": False, "split": "train", "labels": "resized"}
    as_rgb = prepare(mine, data_dir=tmp_path / "a", **common)
    for path in (root / "drawings").iterdir():
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    as_palette = prepare(mine, data_dir=tmp_path / "b", **common)
    for i in range(2):
        assert as_palette.read(i)["label"] == as_rgb.read(i)["label"]
    assert as_palette.metadata["pixels"] == as_rgb.metadata["pixels"]
    assert as_palette.metadata["label_encoding"] == "rgb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            COLORS.replace("ignored_colors", "ignored_ids = [0]\n#"),
            "line 4: ignored_ids has no meaning with",
        ),
        (
            GOOD.replace("ignored_ids", "ignored_colors = [[0, 0, 0]]\n#"),
            "line 3: ignored_colors has .*give ignored_",
        ),
    ],
)
def test_what_is_ignored_is_said_as_the_labels_are(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_dataset(write(tmp_path, text))


def test_a_byte_order_mark(tmp_path):
    assert load_dataset(write(tmp_path, "\ufeff" + GOOD)).name == "mine"


def test_labels_may_lie_elsewhere(tmp_path):
    root = painted(tmp_path / "data")
    (root / "drawings").rename(tmp_path / "elsewhere")
    mine = load_dataset(write(tmp_path, COLORS.replace('"drawings', f'"{tmp_path}/elsewhere')))
    (first, _), problems = find_pairs(mine, "train", root, True)
    assert (first.label, problems) == (tmp_path / "elsewhere/0_L.png", [])
    fixtures.save(fixtures.image(0, 4, 4), tmp_path / "elsewhere/7_L.png")
    assert [problem.file for problem in find_pairs(mine, "train", root, True)[1]] == [f"{tmp_path}/elsewhere/7_L.png"]


def test_an_unlabelled_target_needs_no_classes(tmp_path):
    target = load_dataset(write(tmp_path, 'name = "rain"\n[splits.train]\nimages = "new/*.png"\n'))
    assert target.evaluation_split is None
    assert len(list_examples(target, "train", painted(tmp_path / "data"), labels=False)) == 1
    with pytest.raises(UserError, match=r"mine.toml: no classes; expected"):
        load_dataset(write(tmp_path, 'name = "sun"\n[splits.train]\nimages = "new/*.png"\nlabels = "l/*.png"\n'))


def test_camvid_as_published(tmp_path):
    """The worked example of colour labels: all 32 colours of CamVid have a meaning."""
    camvid = load_dataset(str(EXPERIMENTS / "camvid_colors.toml"))
    assert camvid.label_space == load_dataset(str(EXPERIMENTS / "camvid_day.toml")).label_space
    assert len(camvid.label_colors) == 32


def test_missing_description(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone.toml: No such file"):
        load_dataset(str(tmp_path / "gone.toml"))


def test_camvid_descriptions_share_a_label_space():
    day, dusk = (load_dataset(str(EXPERIMENTS / f"camvid_{time}.toml")) for time in ("day", "dusk"))
    assert day.label_space == dusk.label_space
    assert label_map(day, day.label_space).tolist() == [*range(11), *[255] * 245]
    assert dusk.selection_split is None
    in_camvid = label_map(DATASETS["cityscapes"], day.label_space)
    names = DATASETS["cityscapes"].label_ids
    merged = {names[raw]: day.label_space.classes[i] for raw, i in enumerate(in_camvid) if i != 255}
    assert (merged["traffic light"], merged["bus"], merged["bicycle"]) == ("sign", "car", "bicyclist")


@pytest.mark.skipif(not (fixtures.SHARED / "data/camvid").is_dir(), reason="../shared/data/camvid is not here")
def test_camvid_descriptions_find_all_pairs():
    counts = {}
    for name, split in (("camvid_day", "train"), ("camvid_day", "val"), ("camvid_dusk", "train")):
        dataset = load_dataset(str(EXPERIMENTS / f"{name}.toml"))
        counts[name, split] = len(list_examples(dataset, split, fixtures.SHARED / "data/camvid", labels=True))
    assert list(counts.values()) == [517, 60, 62]


def test_a_split_of_some_frames_in_the_order_of_names(tmp_path):
    """The other frames' labels are no labels without image, and a folder with too few frames is refused."""
    for number in range(5):
        fixtures.save(fixtures.image(number, 20, 16), tmp_path / f"x/{number}.png")
        fixtures.save(fixtures.label(number, 20, 16, (1, 2)), tmp_path / f"y/{number}.png")
    split = '[splits.train]\nimages = "x/*.png"\nlabels = "y/*.png"\nframes = [1, 4]\n'
    classes = '[[classes]]\nname = "a"\nid = 1\n[[classes]]\nname = "b"\nid = 2\n'
    drive = load_dataset(write(tmp_path, f'name = "drive"\n{split}{classes}'))
    examples, problems = find_pairs(drive, "train", tmp_path, True)
    assert [example.name for example in examples] == ["x/1.png", "x/2.png", "x/3.png"]
    assert not problems
    (tmp_path / "x/0.png").unlink()
    (tmp_path / "x/1.png").unlink()
    with pytest.raises(UserError, match=r"has 3 images x/\*.png; expected at least 4, since split train of drive"):
        find_pairs(drive, "train", tmp_path, True)


def test_the_halves_of_the_dusk_drive_are_all_of_it(shared):
    dusk = load_dataset(str(EXPERIMENTS / "camvid_dusk.toml"))
    whole, first, second = (
        [example.name for example in list_examples(dusk, split, shared / "data/camvid", True)]
        for split in ("train", "first_half", "second_half")
    )
    assert first + second == whole
    assert len(first) == len(second) == 31
