import dataclasses
import io
import os
import pickle
from pathlib import Path

import data_fixtures as fixtures
import numpy as np
import pytest
from data_fixtures import prepare_small
from PIL import Image

from sean_jax.data import image_files, label_files
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.preparation import inspection
from sean_jax.data.preparation import job as requests
from sean_jax.data.preparation.encodings import LabelReader
from sean_jax.data.preparation.listing import BadFilesError, list_examples
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError

GTA5, SYNTHIA, CITYSCAPES = (DATASETS[name] for name in ("gta5", "synthia", "cityscapes"))


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def read_all(prepared):
    return [prepared.read(i) for i in range(len(prepared))]


def sets_in(data_dir):
    return sorted(path for path in Path(data_dir).glob("prepared_images/[!.]*/*"))


# What comes out


@pytest.mark.parametrize("labels", ["none", "resized", "original"])
def test_pixels_equal_pillows(tmp_path, labels):
    fixtures.gta5(tmp_path / "gta5")
    prepared = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared", labels=labels)
    examples = list_examples(GTA5, "train", tmp_path / "gta5", labels=True)
    assert len(prepared) == 5
    assert prepared.names == [example.name for example in examples]
    for i, example in enumerate(examples):
        record = prepared.read(i)
        assert record["name"] == example.name
        expected = Image.open(example.image).convert("RGB").resize((30, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(decode(record["image"]), np.asarray(expected))
        with Image.open(str(example.label)) as label:
            label.load()
        if labels == "none":
            assert "label" not in record
        else:
            expected = label.resize((30, 16), Image.Resampling.NEAREST) if labels == "resized" else label
            np.testing.assert_array_equal(decode(record["label"]), np.asarray(expected))


def test_image_and_label_move_together(tmp_path):
    """Vertical stripes whose colour tells their id: at every size each pixel's colour must be that of its label."""
    ids = np.repeat(np.array([7, 8, 11, 26], np.uint8), 16)[None].repeat(24, 0)
    fixtures.save(np.stack([ids * 5] * 3, -1), tmp_path / "gta5/images/00001.png")
    fixtures.save(ids, tmp_path / "gta5/labels/00001.png")
    record = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared", width=32, height=12).read(0)
    image, label = decode(record["image"]), decode(record["label"])
    inside = [x for x in range(32) if 2 <= x % 8 < 6]  # bicubic mixes colours at the edges
    np.testing.assert_array_equal(image[:, inside, 0], label[:, inside] * 5)


def test_synthia_16_bit_labels(tmp_path):
    fixtures.synthia(tmp_path / "synthia")
    prepared = prepare_small(SYNTHIA, tmp_path / "synthia", tmp_path / "prepared", labels="original")
    for i in range(3):
        expected = fixtures.label(10 + i, 40, 24, fixtures.valid_ids("synthia"))
        np.testing.assert_array_equal(decode(prepared.read(i)["label"]), expected)
    assert prepared.metadata["label_encoding"] == "red16"


def test_every_16_bit_value_is_read_right(tmp_path):
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    other = np.random.default_rng(0).integers(0, 1 << 16, (256, 256, 2), np.uint16)
    fixtures.save_16_bit(np.concatenate([values[..., None], other], -1), tmp_path / "all.png")
    file = label_files.open_label(tmp_path / "all.png")
    assert file.kind == "red16"
    np.testing.assert_array_equal(file.values, values)


def test_16_bit_labels_agree_with_tensorflow(tmp_path):
    tf = pytest.importorskip("tensorflow")
    values = np.random.default_rng(3).integers(0, 23, (17, 9, 3)).astype(np.uint16)
    (tmp_path / "tf.png").write_bytes(tf.io.encode_png(values).numpy())
    ids, _ = LabelReader(SYNTHIA, "red16").read(tmp_path / "tf.png")
    np.testing.assert_array_equal(ids, values[..., 0])


def test_statistics(tmp_path):
    fixtures.gta5(tmp_path / "gta5")
    metadata = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared").metadata
    assert metadata["sizes"] == {"36x20": 1, "38x20": 2, "38x22": 1, "40x20": 1}
    assert metadata["label_encoding"] == "palette"
    labels = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "gta5/labels").iterdir())]
    assert metadata["pixels"]["car"] == sum(int((label == 26).sum()) for label in labels)
    assert sum(metadata["pixels"].values()) == sum(label.size for label in labels)


def test_reading_needs_no_order_and_survives_pickling(tmp_path, monkeypatch):
    fixtures.gta5(tmp_path / "gta5")
    monkeypatch.setattr(requests, "PART_BYTES", 2 * 16 * 30 * 4)
    prepared = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared")
    assert prepared.metadata["part_length"] == 2
    assert len(list(prepared.directory.glob("*.array_record*"))) == 3
    again = pickle.loads(pickle.dumps(prepared))
    assert [again.read(i)["name"] for i in (4, 0, 3, 1, 2)] == [prepared.names[i] for i in (4, 0, 3, 1, 2)]
    with pytest.raises(IndexError):
        prepared.read(5)


def test_the_real_frames(tmp_path):
    shared = fixtures.SHARED / "data/cityscapes"
    if not shared.is_dir():
        pytest.skip("../shared/data/cityscapes is not here")
    prepared = prepare_small(CITYSCAPES, shared, tmp_path, labels="original", height=64, width=128)
    assert prepared.metadata["sizes"] == {"2048x1024": 2}
    assert decode(prepared.read(1)["label"]).shape == (1024, 2048)
    assert prepared.metadata["pixels"]["road"] > 0.2 * 2 * 2048 * 1024


# Prepared once, and anew when anything changed


def test_second_time_nothing_is_read(tmp_path, monkeypatch):
    fixtures.gta5(tmp_path / "gta5")
    first = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared")
    monkeypatch.setattr(inspection, "check", None)
    assert prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared") == first


@pytest.mark.parametrize("change", ["size", "description", "content", "time", "added", "labels", "label content"])
def test_changed_input_is_prepared_anew(tmp_path, change):
    root, dataset, settings = fixtures.gta5(tmp_path / "gta5"), GTA5, {}
    first = prepare_small(dataset, root, tmp_path / "prepared")
    if change == "size":
        settings = {"height": 18}
    elif change == "labels":
        settings = {"labels": "original"}
    elif change == "description":
        dataset = dataclasses.replace(GTA5, ignored_ids=(*GTA5.ignored_ids, 200))
    elif change == "content":
        fixtures.save(fixtures.image(99, 38, 20), root / "images/00001.png")
    elif change == "label content":
        fixtures.save(fixtures.label(99, 38, 20, (7, 26)), root / "labels/00001.png")
    elif change == "time":
        os.utime(root / "images/00003.png", ns=(1, 1))
    else:
        fixtures.save(fixtures.image(99, 38, 20), root / "images/00009.png")
        fixtures.save(fixtures.label(99, 38, 20, (7, 26)), root / "labels/00009.png")
    second = prepare_small(dataset, root, tmp_path / "prepared", **settings)
    assert second.directory != first.directory
    assert len(second) == (6 if change == "added" else 5)


def test_labels_none_never_touches_label_files(tmp_path, monkeypatch):
    root = fixtures.cityscapes(tmp_path / "cityscapes", {"train": 3})
    for path in root.glob("gtFine/*/*/*"):
        path.write_bytes(b"not a label")
    touched = []
    for method in ("open", "stat", "is_file", "read_bytes", "glob"):
        original = getattr(Path, method)

        def spy(self, *args, _original=original, **kwargs):
            if "gtFine" in str(self) or any("gtFine" in str(arg) for arg in args):
                touched.append(str(self))
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(Path, method, spy)
    prepared = prepare_small(CITYSCAPES, root, tmp_path / "prepared", labels="none")
    assert touched == []
    assert all("label" not in prepared.read(i) for i in range(3))


# Faults


def break_pair(root, error):
    image, label = root / "images/00002.png", root / "labels/00002.png"
    if error == "truncated image":
        image.write_bytes(image.read_bytes()[:200])
    elif error == "end of image missing":
        image.write_bytes(image.read_bytes()[:-16])
    elif error == "damaged label":
        data = bytearray(label.read_bytes())
        data[-40] ^= 1
        label.write_bytes(data)
    elif error == "empty label":
        label.write_bytes(b"")
    elif error == "size":
        fixtures.save(fixtures.label(1, 37, 20, (7,)), label)
    elif error == "ids":
        fixtures.save(np.full((22, 38), 40, np.uint8), label)
    elif error == "colour":
        fixtures.save(fixtures.image(1, 38, 22), label)
    else:
        label.unlink()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("truncated image", r"images/00002.png: truncated, damaged or not an image"),
        ("end of image missing", r"images/00002.png: truncated, damaged or not an image"),
        ("damaged label", r"labels/00002.png: truncated, damaged or not an image"),
        ("empty label", r"labels/00002.png: truncated, damaged or not an image \(cannot identify image file\)"),
        ("size", r"labels/00002.png: the label is 37x20 and its image images/00002.png 38x22; expected equal sizes"),
        ("ids", r"labels/00002.png: label ids 40 are outside the table of gta5; expected 0-34, 255"),
        ("colour", r"labels/00002.png: the label is a PNG of mode RGB; expected ids \(one channel"),
        ("no label", r"images/00002.png: its label .*labels/00002.png does not exist"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_kept(tmp_path, error, message):
    root = fixtures.gta5(tmp_path / "gta5")
    break_pair(root, error)
    with pytest.raises(UserError, match=message) as raised:
        prepare_small(GTA5, root, tmp_path / "prepared")
    assert "\n" not in str(raised.value)
    assert "BUILD.md" in str(raised.value)
    assert sets_in(tmp_path / "prepared") == []


def test_all_errors_are_found_at_once(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5")
    (root / "labels/00001.png").unlink()
    break_pair(root, "ids")
    for i in (4, 5):
        (root / f"images/0000{i}.png").write_bytes(b"no image")
    with pytest.raises(BadFilesError, match="and 1 more") as raised:
        prepare_small(GTA5, root, tmp_path / "prepared")
    assert [Path(problem.file).name for problem in raised.value.problems] == [f"0000{i}.png" for i in (1, 4, 5, 2)]


def test_an_error_in_one_part_is_found_with_those_of_later_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "PART_BYTES", 1)
    root = fixtures.gta5(tmp_path / "gta5")
    for i in (1, 5):
        (root / f"images/0000{i}.png").write_bytes(b"no image")
    with pytest.raises(BadFilesError) as raised:
        prepare_small(GTA5, root, tmp_path / "prepared")
    assert len(raised.value.problems) == 2
    assert sets_in(tmp_path / "prepared") == []


@pytest.mark.parametrize(("value", "ok"), [(0, True), (22, True), (23, False), (255, False), (256, False)])
def test_16_bit_ids_outside_the_table_are_errors(tmp_path, value, ok):
    fixtures.save_16_bit(np.full((4, 4, 3), value, np.uint16), tmp_path / "x.png")
    if ok:
        assert LabelReader(SYNTHIA, "red16").read(tmp_path / "x.png")[0].tolist() == [[value] * 4] * 4
    else:
        with pytest.raises(image_files.BadFileError, match=f"label ids {value} are outside .* expected 0-22"):
            LabelReader(SYNTHIA, "red16").read(tmp_path / "x.png")


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_set_is_noticed_on_reading(tmp_path, damage):
    fixtures.gta5(tmp_path / "gta5")
    prepared = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared")
    (file,) = prepared.directory.glob("*.array_record*")
    data = file.read_bytes()
    image = data.index(prepared.read(4)["image"][:40])
    if damage == "cut":
        file.write_bytes(data[: file.stat().st_size // 2])
    elif damage == "changed":
        file.write_bytes(data[: image + 100] + b"changed" + data[image + 107 :])
    else:
        file.unlink()
    with pytest.raises(UserError, match=r"is damaged .*; delete it to have it prepared anew"):
        read_all(PreparedSet(prepared.directory))


def test_a_set_in_another_order_is_noticed_on_reading(tmp_path):
    fixtures.gta5(tmp_path / "gta5")
    prepared = prepare_small(GTA5, tmp_path / "gta5", tmp_path / "prepared")
    prepared.metadata["names"].reverse()
    with pytest.raises(UserError, match=r"example 0 is images/00001.png, expected images/00005.png"):
        prepared.read(0)


def test_a_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--data_dir=.*file/x is or lies in a file; expected a folder"):
        prepare_small(GTA5, fixtures.gta5(tmp_path / "gta5"), tmp_path / "file" / "x")
