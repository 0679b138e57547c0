"""Tests of the command ``predict``: its output files, image formats, and errors."""

import os
import pathlib

import commands
import numpy as np
import pytest
import streets
from commands import assert_refused
from PIL import Image

from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.errors import UserError
from sean_jax.scoring import visualize
from sean_jax.scoring.input_images import check_image, find_images, read_image

PALETTE = LABEL_SPACES["19"].palette


@pytest.fixture
def predict(tmp_path, finished):
    """Runs the command on the finished run, into ``tmp_path / "out"`` unless another output is given."""

    def run(*words, file_limit=None, **flags) -> commands.Result:
        defaults = {"workdir": finished, "output": tmp_path / "out"}
        return commands.run(tmp_path / "output", "predict", *words, file_limit=file_limit, **defaults | flags)

    return run


def test_predictions_reproduce_the_confusion_matrix(predict, tmp_path, roads, finished):
    """Comparing the PNGs with the labels gives the confusion matrix of the run's own evaluation."""
    import json

    folder = pathlib.Path(roads["target_dir"])
    result = predict("--overlay", "--attention", "--label_ids", input=folder / "leftImg8bit/val")
    assert (result.code, result.said()) == (0, [])
    matrix = np.zeros((19, 19), np.int64)
    for label_file in sorted((folder / "gtFine/val/aachen").iterdir()):
        stem = tmp_path / "out" / "aachen" / label_file.name.replace("_gtFine_labelIds.png", "_leftImg8bit")
        with Image.open(f"{stem}.png") as picture:
            assert picture.mode == "P"
            assert tuple(picture.getpalette()[:57]) == tuple(np.ravel(PALETTE))
            classes = np.asarray(picture)
        ids = np.asarray(streets.load_image(f"{stem}_labelIds.png"))
        np.testing.assert_array_equal(ids, np.array(streets.LABEL_IDS)[classes])
        image = np.asarray(
            streets.load_image(str(stem).replace(str(tmp_path / "out"), str(folder / "leftImg8bit/val")) + ".png")
        )
        blended = visualize.overlay(image, visualize.colorize(classes, PALETTE))
        np.testing.assert_array_equal(np.asarray(streets.load_image(f"{stem}_overlay.png")), blended)
        assert streets.load_image(f"{stem}_attention.png").size == image.shape[1::-1]
        truth = np.asarray(streets.load_image(label_file))
        for raw, predicted in zip(truth.ravel(), classes.ravel(), strict=True):
            if raw in streets.LABEL_IDS:
                matrix[streets.LABEL_IDS.index(raw), predicted] += 1
    scores = json.loads((finished / "evaluation.json").read_text())["teacher"]
    assert matrix.tolist() == scores["confusion_matrix"]


def test_images_of_any_size_and_kind(predict, tmp_path):
    """Covers the smallest size, odd sizes, grey, transparency and a rotated JPEG, also at the original size."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "least.png")
    Image.new("L", (37, 21), 99).save(folder / "deep" / "grey.v2.png")
    Image.new("RGBA", (33, 17), (1, 2, 3, 4)).save(folder / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (40, 24)).save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("no image")
    result = predict("--native_size", input=folder)
    assert (result.code, result.said()) == (0, [])
    found = {
        str(path.relative_to(tmp_path / "out")): streets.load_image(path).size
        for path in (tmp_path / "out").rglob("*.png")
    }
    assert found == {"least.png": (16, 16), "deep/grey.v2.png": (37, 21), "clear.png": (33, 17), "turned.png": (24, 40)}


def _not_an_image(folder):
    (folder / "a.png").write_text("no image")


def _truncated(folder):
    streets.pair(folder / "a.png", None, 0)
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:-300])


def _of_no_range(folder):
    streets.pair(folder / "a.png", None, 0)
    Image.new("F", (32, 32)).save(folder / "z.tif")


def _too_small(folder):
    streets.pair(folder / "a.png", None, 0)
    Image.new("RGB", (15, 15)).save(folder / "z.png")


def _colliding(folder):
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (32, 32)).save(folder / name)


def _nothing(folder):
    pass


@pytest.mark.parametrize(
    ("fill", "parts"),
    [
        (_not_an_image, ("a.png", "cannot be read as an image")),
        (_truncated, ("a.png", "cannot be read as an image")),
        (_of_no_range, ("z.tif", "cannot be read as an image", "TIFF of mode F; expected 8 or 16 bits")),
        (_too_small, ("z.png", "15x15", "at least 16x16")),
        (_colliding, ("a.jpg", "a.png", "would both be written")),
        (_nothing, ("matches no image",)),
    ],
)
def test_a_bad_folder_is_reported_and_writes_no_output(predict, tmp_path, fill, parts):
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in")
    assert_refused(predict(input=tmp_path / "in"), "predict", *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"input": "/nowhere/*.png"}, ("/nowhere/*.png", "matches no image")),
        ({"input": ""}, ("--input", "--output")),
        ({"workdir": "/nowhere"}, ("--workdir=/nowhere", "config.json")),
        ({"weights": "/nowhere.npz"}, ("either --workdir", "or --weights")),
        ({"output": "/dev/null/out"}, ("Not a directory", "/dev/null/out")),
    ],
)
def test_wrong_flags_are_reported_in_one_line(predict, tmp_path, flags, parts):
    streets.pair(tmp_path / "in.png", None, 0)
    assert_refused(predict(**{"input": tmp_path / "in.png"} | flags), "predict", *parts)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_incomplete_picture(predict, tmp_path):
    Image.effect_noise((900, 900), 90).save(tmp_path / "in.png")
    result = predict("--overlay", input=tmp_path / "in.png", file_limit=20_000)
    assert_refused(result, "predict", "cannot write", "free space")
    assert "in_overlay.png" not in os.listdir(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


def test_16_bit_grey_is_not_clipped(tmp_path):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 7
    Image.fromarray(values).save(tmp_path / "x.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "x.png"))[..., 1], values >> 8)


def test_neither_side_may_be_too_small(tmp_path):
    for size in ((15, 64), (64, 15)):
        Image.new("RGB", size).save(tmp_path / "x.png")
        with pytest.raises(UserError, match=f"{size[0]}x{size[1]} pixels; expected at least 16x16"):
            check_image(tmp_path / "x.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    check_image(tmp_path / "x.png")


# Selection of files


def save(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)


def test_earlier_results_and_hidden_files_are_not_read(tmp_path):
    save(tmp_path / "a.png", tmp_path / "out" / "a.png", tmp_path / "._a.png")
    assert [job.image for job in find_images(str(tmp_path), tmp_path / "out")] == [tmp_path / "a.png"]


@pytest.mark.parametrize("name", ["a.png", "a.0001.png"])
def test_an_input_is_never_overwritten(tmp_path, name):
    save(tmp_path / name)
    with pytest.raises(UserError, match="would overwrite"):
        find_images(str(tmp_path / name), tmp_path)
    with pytest.raises(UserError, match="would overwrite"):
        find_images(str(tmp_path / "*.png"), tmp_path)


def test_an_overlay_never_overwrites_an_input(tmp_path):
    save(tmp_path / "a.jpg", tmp_path / "a_overlay.png")
    assert find_images(str(tmp_path / "a.jpg"), tmp_path)
    with pytest.raises(UserError, match="would overwrite"):
        find_images(str(tmp_path), tmp_path, [".png", "_overlay.png"])
    with pytest.raises(UserError, match="would both be written"):
        find_images(str(tmp_path), tmp_path / "out", [".png", "_overlay.png"])


def test_a_glob_flattens_and_a_folder_keeps_its_structure(tmp_path):
    save(tmp_path / "x" / "a.png", tmp_path / "y" / "b.png")
    out = tmp_path / "out"
    assert [job.file(".png") for job in find_images(str(tmp_path), out)] == [out / "x/a.png", out / "y/b.png"]
    assert [job.file(".png") for job in find_images(f"{tmp_path}/**/*.png", out)] == [out / "a.png", out / "b.png"]
    save(tmp_path / "y" / "a.png")
    with pytest.raises(UserError, match="would both be written"):
        find_images(f"{tmp_path}/**/*.png", out)


def found(folder, output) -> dict[str, str]:
    """Images by the path of their result, both relative to their folders."""
    jobs = find_images(str(folder), output)
    return {job.file(".png").relative_to(output).as_posix(): job.image.relative_to(folder).as_posix() for job in jobs}


def test_links_to_folders_are_followed_and_end(tmp_path):
    save(tmp_path / "in/a/a.png", tmp_path / "store/b/b.png")
    (tmp_path / "in/b").symlink_to(tmp_path / "store/b")
    (tmp_path / "in/c").symlink_to(tmp_path / "in/a")  # under another name, once more
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone").symlink_to(tmp_path / "nowhere")
    names = ("a/a.png", "b/b.png", "c/a.png")
    assert found(tmp_path / "in", tmp_path / "out") == dict(zip(names, names, strict=True))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert list(found(tmp_path / "link", tmp_path / "out")) == list(names)


def test_what_other_programs_leave_is_not_read(tmp_path):
    save(tmp_path / "a.png", tmp_path / ".ipynb_checkpoints/a-checkpoint.png", tmp_path / ".thumbnails/a.png")
    save(tmp_path / "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", tmp_path / "b.jpg/c.png", tmp_path / "__MACOSX/._a.png")
    assert found(tmp_path, tmp_path / "out") == {"a.png": "a.png", "b.jpg/c.png": "b.jpg/c.png"}
    images = [job.image for job in find_images(f"{tmp_path}/**", tmp_path / "out")]
    assert images == [tmp_path / "a.png", tmp_path / "b.jpg/c.png"]
    assert len(find_images(f"{tmp_path}/@eaDir/*/*", tmp_path / "out")) == 1  # asked for by name


def test_an_output_above_the_input_hides_no_image(tmp_path, monkeypatch):
    save(tmp_path / "job/photos/a.jpg", tmp_path / "job/photos/out/a.png")
    assert set(found(tmp_path / "job/photos", tmp_path / "job")) == {"a.png", "out/a.png"}
    assert set(found(tmp_path / "job/photos", tmp_path / "job/photos/out")) == {"a.png"}
    monkeypatch.chdir(tmp_path / "job")
    images = [str(job.image) for job in find_images("photos", pathlib.Path())]
    assert images == ["photos/a.jpg", "photos/out/a.png"]


def test_every_extension_counts_and_other_formats_are_told(tmp_path, capsys):
    save(*(tmp_path / name for name in ("a.jpg", "b.JPG", "d.jpeg", "f.Tiff")))
    (tmp_path / "e.jfif").write_bytes((tmp_path / "a.jpg").read_bytes())
    for name in ("x.HEIC", "y.HEIC", "z.dng", "notes.txt"):
        (tmp_path / name).touch()
    assert len(found(tmp_path, tmp_path / "out")) == 5
    assert "skipped: 2 of .HEIC, 1 of .dng; convert them to PNG or JPEG" in capsys.readouterr().err
