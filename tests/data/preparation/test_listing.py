"""Which files make up a data set: names, extensions, copies, and what other programs leave in folders."""

import unicodedata

import data_fixtures as fixtures
import pytest
from data_fixtures import errors_of
from PIL import Image

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import Dataset, Split
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.data.preparation.listing import BadFilesError, find_pairs, with_other_extensions

GTA5, SYNTHIA, CITYSCAPES = (DATASETS[name] for name in ("gta5", "synthia", "cityscapes"))


def own(images="images/*.png", labels="labels/*.png") -> Dataset:
    space = LABEL_SPACES["19"]
    return Dataset("own", {"train": Split(images, labels)}, {7: "road"}, (), ("ids",), space, "train")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_of(dataset, root, labels=True):
    pairs, problems = find_pairs(dataset, "train", root, labels)
    assert problems == []
    return {pair.name: pair.label and pair.label.relative_to(root).as_posix() for pair in pairs}


@pytest.mark.parametrize("image_form", ["NFC", "NFD"])
def test_names_that_look_the_same_are_pairs(tmp_path, image_form):
    """Images from a Mac, labels from Linux, or the other way round."""
    other = {"NFC": "NFD", "NFD": "NFC"}[image_form]
    image = "images/" + unicodedata.normalize(image_form, "zürich/é.png")
    label = "labels/" + unicodedata.normalize(other, "zürich/é.png")
    assert names_of(own("images/*/*.png", "labels/*/*.png"), touch(tmp_path, image, label)) == {image: label}


def test_extensions_in_any_case(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/b.JPG", "images/c.Jpg", "labels/a.PNG", "labels/b.png", "labels/c.png")
    assert names_of(own("images/*.jpg"), tmp_path) == {
        "images/a.jpg": "labels/a.PNG",
        "images/b.JPG": "labels/b.png",
        "images/c.Jpg": "labels/c.png",
    }


def test_two_files_of_one_name_are_not_chosen_between(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/a.JPG", "images/b.jpg", "labels/a.png", "labels/b.PNG", "labels/b.Png")
    pairs, problems = find_pairs(own("images/*.jpg"), "train", tmp_path, labels=True)
    assert len(pairs) == 1
    assert sorted(problem.message for problem in problems)[1].startswith("two labels have its name: labels/b.PNG and")
    assert any("but for case or Unicode composition; leave one of them out" in problem.message for problem in problems)
    touch(tmp_path, "labels/b.png")  # exactly what the pattern says
    assert len(find_pairs(own("images/*.jpg"), "train", tmp_path, labels=True)[1]) == 1


def test_images_with_other_extensions_are_told(tmp_path):
    touch(tmp_path, "rain/a.jpg", "rain/d.jpeg", "rain/e.JFIF", "rain/notes.txt", "rain/a.png", "rain/f.png.bak")
    assert with_other_extensions(own("rain/*.jpg", "rain/*.png"), "train", tmp_path) == ["rain/d.jpeg", "rain/e.JFIF"]
    assert with_other_extensions(own("rain/*", "labels/*"), "train", tmp_path) == []


@pytest.mark.parametrize(
    "foreign",
    [
        *(".ipynb_checkpoints/a.png", ".thumbnails/a.png", "@eaDir/a.png", "__MACOSX/a.png", "lost+found/a.png"),
        *("x/Thumbs.db", "x/desktop.ini", "x/.DS_Store", "x/._a.png", "$RECYCLE.BIN/a.png"),
    ],
)
def test_what_other_programs_leave_is_no_image(tmp_path, foreign):
    touch(tmp_path, "photos/x/a.png", f"photos/{foreign}")
    assert names_of(own("photos/*/*"), tmp_path, labels=False) == {"photos/x/a.png": None}


def test_folders_named_like_images_are_none_and_links_are_followed(tmp_path):
    touch(tmp_path, "store/zurich/b.png", "images/aachen/a.png", "images/aachen/c.png/thumbnail.png")
    (tmp_path / "images/zurich").symlink_to(tmp_path / "store/zurich")
    (tmp_path / "images/aachen/d.png").symlink_to(tmp_path / "store/zurich/b.png")
    found = names_of(own("images/*/*.png"), tmp_path, labels=False)
    assert list(found) == ["images/aachen/a.png", "images/aachen/d.png", "images/zurich/b.png"]


@pytest.mark.parametrize(("dataset", "labels"), [(GTA5, "labels"), (SYNTHIA, "GT/LABELS")])
def test_known_copies_beside_labels_are_no_labels(tmp_path, dataset, labels):
    """DAFormer, HRDA and MIC write a copy in trainIds beside each label."""
    root = getattr(fixtures, dataset.name)(tmp_path / "data")
    before = names_of(dataset, root)
    for file in list((root / labels).iterdir()):
        for ending in ("_labelTrainIds", "_color", "_instanceIds"):
            file.with_name(f"{file.stem}{ending}.png").write_bytes(b"not opened")
    touch(root, "sample_class_stats.json")
    assert names_of(dataset, root) == before
    (root / labels / "extra.png").touch()
    (root / labels / "gone_labelTrainIds.png").touch()  # a copy of nothing
    problems = find_pairs(dataset, "train", root, labels=True)[1]
    assert [problem.message for problem in problems] == ["its image does not exist"] * 2


@pytest.mark.parametrize(
    ("flag", "way"), [("--target_dir", "--eval_split=none trains without"), ("--dataset_dir", "prepare --labels=none")]
)
def test_a_set_without_any_label_is_told_in_one_problem(tmp_path, flag, way):
    root = fixtures.cityscapes(tmp_path / "city", {"val": 3})
    for file in root.glob("gtFine/*/*/*"):
        file.unlink()
    with pytest.raises(BadFilesError, match=rf"\*_gtFine_labelIds.png: not one of 3 images.*{way}") as error:
        find_pairs(CITYSCAPES, "val", root, labels=True, flag=flag)
    assert "skip_bad" not in str(error.value)
    assert len(errors_of(CITYSCAPES, root, tmp_path / "data", split="val", skip_bad=True).problems) == 1


def test_pixels_of_a_label_whose_name_is_composed_otherwise(tmp_path):
    """The right label is read, not only found."""
    for i, name in enumerate(("ü", "ö")):
        fixtures.save(fixtures.image(i, 30, 20), tmp_path / f"images/{unicodedata.normalize('NFD', name)}.png")
        Image.new("L", (30, 20), 7).save(tmp_path / f"images/{i}.png")
        (tmp_path / f"images/{i}.png").unlink()
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.new("L", (30, 20), 7 + i).save(tmp_path / f"labels/{name}.png")
    pairs, _ = find_pairs(own(), "train", tmp_path, labels=True)
    for pair in pairs:
        expected = 7 + (unicodedata.normalize("NFC", pair.image.stem) == "ö")
        with Image.open(str(pair.label)) as label:
            assert label.getpixel((0, 0)) == expected
