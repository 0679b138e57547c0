"""Faults of whole data sets, what is decided about them, and what training does with it."""

import collections
import json
import os
import shutil

import data_fixtures as fixtures
import numpy as np
import pytest
from data_fixtures import assert_reported, errors_of, prepare_small

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.preparation import checking, inspection, job
from sean_jax.data.preparation.listing import BadFilesError
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError
from sean_jax.run import plan as setup

SYNTHIA, GTA5, CITYSCAPES = (DATASETS[name] for name in ("synthia", "gta5", "cityscapes"))


def copy_labels(root, convert):
    """Overwrites SYNTHIA's labels with 8-bit ones."""
    for i, path in enumerate(sorted((root / "GT/LABELS").iterdir())):
        fixtures.save(convert(fixtures.label(10 + i, 40, 24, fixtures.valid_ids("synthia"))), path)
    return root


def break_many(root):
    """One error of each kind in ten GTA-5 pairs; returns the bad files with what is wrong."""
    errors = {
        "labels/00001.png": "its image does not exist",
        "images/00002.png": "its label",
        "images/00003.png": "truncated, damaged or not an image",
        "labels/00004.png": "truncated, damaged or not an image",
        "labels/00005.png": "expected equal sizes",
        "labels/00006.png": "label ids 40, 200 are outside the table",
        "labels/00007.png": "the label is ignored (id 0) everywhere",
        "labels/00008.png": "the label is a PNG of mode RGB; expected ids",
    }
    (root / "images/00001.png").unlink()
    (root / "labels/00002.png").unlink()
    for file in ("images/00003.png", "labels/00004.png"):
        (root / file).write_bytes((root / file).read_bytes()[:-30])
    fixtures.save(fixtures.label(1, 37, 20, (7, 26)), root / "labels/00005.png")
    fixtures.save(fixtures.label(1, *fixtures.GTA5_SIZES[0], (7, 40, 200)), root / "labels/00006.png")
    fixtures.save(np.zeros(fixtures.GTA5_SIZES[1][::-1], np.uint8), root / "labels/00007.png")
    fixtures.save(fixtures.image(1, *fixtures.GTA5_SIZES[2]), root / "labels/00008.png")
    return {str(root / file): error for file, error in errors.items()}


def test_every_kind_of_error_is_found_at_once(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5", 10)
    expected = break_many(root)
    error = errors_of(GTA5, root, tmp_path / "prepared")
    assert_reported([problem.to_dict() for problem in error.problems], expected)
    assert error.facts["pairs"] == 2
    assert error.facts["label_encoding"] == "palette"
    assert error.facts["sizes"] == {"38x20": 1, "40x20": 1}
    assert sum(error.facts["pixels"].values()) == 38 * 20 + 40 * 20
    assert not list((tmp_path / "prepared").glob("prepared_images/[!.]*"))


def test_skip_bad_leaves_bad_pairs_out_and_training_goes_by_it(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5", 10)
    expected = break_many(root)
    prepared = prepare_small(GTA5, root, tmp_path / "prepared", skip_bad=True)
    assert prepared.names == ["images/00009.png", "images/00010.png"]
    assert [prepared.read(i)["name"] for i in range(2)] == prepared.names
    assert_reported(prepared.metadata["faults"], expected)
    assert prepared.metadata["pairs"] == 2
    # Said once, it holds for other sizes and for training, until a file changes.
    assert prepare_small(GTA5, root, tmp_path / "prepared") == prepared
    assert len(prepare_small(GTA5, root, tmp_path / "prepared", height=18)) == 2
    os.utime(root / "images/00009.png", ns=(1, 1))
    assert len(errors_of(GTA5, root, tmp_path / "prepared").problems) == 8


@pytest.mark.parametrize("skip_bad", [False, True])
def test_each_pair_is_decoded_once_besides_the_sample(tmp_path, monkeypatch, skip_bad):
    root, decoded = fixtures.gta5(tmp_path / "gta5", 40), collections.Counter()
    read_image = checking.image_files.read_turned

    def counted(path):
        decoded[path.name] += 1
        return read_image(path)

    monkeypatch.setattr(checking.image_files, "read_turned", counted)
    if skip_bad:
        (root / "images/00003.png").write_bytes(b"no image")
    prepared = prepare_small(GTA5, root, tmp_path / "prepared", skip_bad=skip_bad)
    assert len(prepared) == 40 - skip_bad
    assert len(decoded) == 40
    assert decoded.total() == 40 + 16


@pytest.mark.parametrize("bad", [(), (1, 2), (3,), (5, 6), (1, 2, 3, 4, 5)])
def test_parts_are_full_whichever_pairs_are_left_out(tmp_path, monkeypatch, bad):
    """Two examples a part: which is where one is sought, and a part without any cannot be written."""
    monkeypatch.setattr(job, "PART_BYTES", 2 * 16 * 30 * 4)
    root = fixtures.gta5(tmp_path / "gta5", 6)
    for number in bad:
        (root / f"images/{number:05}.png").write_bytes(b"no image")
    prepared = prepare_small(GTA5, root, tmp_path / "prepared", skip_bad=True)
    assert prepared.names == [f"images/{number:05}.png" for number in range(1, 7) if number not in bad]
    assert [prepared.read(i)["name"] for i in range(len(prepared))] == prepared.names
    assert len(list(prepared.directory.glob("*.array_record*"))) == -(-(6 - len(bad)) // 2)


def test_skip_bad_with_nothing_left(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5", 2)
    for path in root.glob("images/*"):
        path.write_bytes(b"no image")
    assert len(errors_of(GTA5, root, tmp_path / "prepared", skip_bad=True).problems) == 2


def test_unreadable_images_of_a_target(tmp_path):
    root = fixtures.cityscapes(tmp_path / "cityscapes", {"train": 4})
    bad = sorted(root.glob("leftImg8bit/*/*/*"))[1]
    bad.write_bytes(b"no image")
    (problem,) = errors_of(CITYSCAPES, root, tmp_path / "prepared", labels="none").problems
    assert problem.file == str(bad)
    assert len(prepare_small(CITYSCAPES, root, tmp_path / "prepared", labels="none", skip_bad=True)) == 3


def test_labels_that_pillow_would_read_as_zeros_are_not_taken(tmp_path):
    """What converting SYNTHIA by Pillow leaves: 8-bit files of zeros."""
    root = copy_labels(fixtures.synthia(tmp_path / "synthia"), np.zeros_like)
    messages = [problem.message for problem in errors_of(SYNTHIA, root, tmp_path / "prepared").problems]
    assert len(messages) == 4
    assert messages.count("the label is one value everywhere") == 3
    assert any("fit several encodings" in message for message in messages)


@pytest.mark.parametrize("name", ["ids", "train_ids"])
def test_8_bit_copies_of_synthia_give_what_the_original_gives(tmp_path, name):
    original = prepare_small(SYNTHIA, fixtures.synthia(tmp_path / "a"), tmp_path / "prepared")
    root = fixtures.synthia(tmp_path / "b")
    copy_labels(root, (lambda ids: ids) if name == "ids" else lambda ids: fixtures.to_train_ids(ids, "synthia"))
    copy = prepare_small(SYNTHIA, root, tmp_path / "prepared")
    assert copy.metadata["label_encoding"] == name
    for key in ("pixels", "sizes", "pairs"):
        if key == "pixels" or original.metadata[key] != copy.metadata[key]:
            assert original.metadata[key] == copy.metadata[key]


def test_cityscapes_with_train_id_files_alone(tmp_path):
    root = fixtures.cityscapes(tmp_path / "cityscapes", {"train": 3})
    for path in root.glob("gtFine/*/*/*"):
        ids = fixtures.label(int(path.name.split("_")[1]) + 20, 64, 32, fixtures.valid_ids("cityscapes"))
        fixtures.save(fixtures.to_train_ids(ids, "cityscapes"), path.with_name(path.name.replace("Ids", "TrainIds")))
    own = prepare_small(CITYSCAPES, root, tmp_path / "prepared")
    assert own.metadata["label_encoding"] == "ids"
    for path in root.glob("gtFine/*/*/*labelIds.png"):
        path.unlink()
    copy = prepare_small(CITYSCAPES, root, tmp_path / "prepared")
    assert copy.metadata["label_encoding"] == "train_ids"
    assert copy.metadata["pixels"] == own.metadata["pixels"]


# What fits several encodings


@pytest.fixture
def ambiguous(tmp_path):
    ids = tuple(range(1, 19))
    root = fixtures.synthia(tmp_path / "synthia")
    for i, path in enumerate(sorted((root / "GT/LABELS").iterdir())):
        fixtures.save(fixtures.label(i, 40, 24, ids), path)
    return root


def test_ambiguous_labels_are_refused_with_all_other_errors(tmp_path, ambiguous):
    (ambiguous / "RGB/0000001.png").write_bytes(b"no image")
    error = errors_of(SYNTHIA, ambiguous, tmp_path / "prepared")
    image, whole = sorted(error.problems, key=lambda problem: "RGB" not in problem.file)
    assert image.file.endswith("RGB/0000001.png")
    assert "the values of these labels fit several encodings" in whole.message
    assert "choose by `prepare --split=train --label_encoding=NAME`, one of red16, ids, train_ids" in whole.message
    assert (error.facts["label_encoding"], error.facts["pairs"], error.facts["pixels"]) == (None, 2, {})


def test_label_encoding_settles_it_for_training_too(tmp_path, ambiguous):
    cityscapes = fixtures.cityscapes(tmp_path / "cityscapes", {"train": 2, "val": 1})
    given = {"source": "synthia", "source_dir": str(ambiguous), "target_dir": str(cityscapes), "height": 16}
    given |= {"width": 32, "data_dir": str(tmp_path / "prepared")}
    planned = setup.plan(given)
    with pytest.raises(UserError, match="choose by `prepare --split=train --label_encoding=NAME`"):
        setup.prepare_training(planned, reads_target=True, progress=False)
    pixels = {}
    for encoding in ("ids", "train_ids"):
        settled = prepare_small(SYNTHIA, ambiguous, tmp_path / "prepared", label_encoding=encoding)
        source, target = setup.prepare_training(planned, reads_target=True, progress=False)
        assert source.metadata["label_encoding"] == settled.metadata["label_encoding"] == encoding
        assert "label" not in target.read(0)
        pixels[encoding] = source.metadata["pixels"]
    assert pixels["ids"] != pixels["train_ids"]


def test_an_encoding_that_a_data_set_never_has(tmp_path):
    with pytest.raises(UserError, match=r"labels of cityscapes never have it; expected ids, train_ids"):
        prepare_small(CITYSCAPES, tmp_path, tmp_path / "prepared", label_encoding="red16")


# Space


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, monkeypatch):
    root = fixtures.gta5(tmp_path / "gta5")
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(inspection.shutil, "disk_usage", lambda _: usage(10**4, 0, 5000))
    with pytest.raises(UserError, match=r"preparing 5 images needs about 0.1 MB in .*; choose another --data_dir"):
        prepare_small(GTA5, root, tmp_path / "prepared")
    assert not list((tmp_path / "prepared").glob("prepared_images/[!.]*"))


def test_the_space_needed_is_said_and_about_right(tmp_path, capsys):
    root = fixtures.gta5(tmp_path / "gta5", 20)
    prepared = prepare_small(GTA5, root, tmp_path / "prepared", progress=True, height=64, width=128)
    said = capsys.readouterr().err
    assert "preparing 20 images takes about" in said
    size = sum(path.stat().st_size for path in prepared.directory.glob("*array_record*")) / 1e6
    assert size == pytest.approx(float(said.split("about ")[1].split(" MB")[0]), rel=0.2)


# What training takes


@pytest.fixture
def trained(tmp_path):
    """What `train` prepares from, and how."""
    root, target = fixtures.gta5(tmp_path / "gta5"), fixtures.cityscapes(tmp_path / "cityscapes")
    given = {"source": "gta5", "source_dir": str(root), "target_dir": str(target), "data_dir": str(tmp_path / "data")}

    def directories(**settings):
        planned = setup.plan({"height": 16, "width": 32, **given, **settings})
        source, target = setup.prepare_training(planned, reads_target=True, progress=False)
        scored = setup.prepare_scoring(planned.experiment.config, planned.target, progress=False)
        return source.directory, target.directory, scored.directory

    return root, target, directories


def test_train_prepares_anew_what_is_stale(trained):
    root, target, directories = trained
    first = directories()
    assert directories() == first
    assert not set(directories(height=18)) & set(first)
    fixtures.save(fixtures.label(77, *fixtures.GTA5_SIZES[0], fixtures.valid_ids("gta5")), root / "labels/00001.png")
    second = directories()
    assert (second[0] != first[0], *second[1:]) == (True, *first[1:])
    (target / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").unlink()
    third = directories()
    assert (third[0], third[1] != first[1], third[2]) == (second[0], True, first[2])
    next((target / "gtFine/val").glob("*/*")).write_bytes(b"no image")
    with pytest.raises(BadFilesError, match="truncated, damaged or not an image"):
        directories()


def test_train_takes_no_half_set(trained):
    """Whatever is missing of a set's folder, training says so or prepares anew."""
    directories = trained[2]
    source = directories()[0]
    (source / "metadata.json").unlink()
    assert directories()[0] == source
    assert len(PreparedSet(source)) == 5
    shutil.rmtree(source)
    assert directories()[0] == source
    metadata = json.loads((source / "metadata.json").read_text())
    assert metadata["pairs"] == 5


# Real files


def test_the_real_pairs_and_frames_read_right(tmp_path, shared):
    prepared = prepare_small(CITYSCAPES, shared / "data/cityscapes", tmp_path / "prepared", labels="original")
    assert prepared.metadata["label_encoding"] == "ids"
    assert prepared.metadata["sizes"] == {"2048x1024": 2}
    assert prepared.metadata["pixels"]["road"] > 0.2 * 2 * 2048 * 1024
    frames = tmp_path / "gta5"
    (frames / "images").mkdir(parents=True)
    for path in (shared / "data/gta5_frames").glob("*.png"):
        (frames / "images" / path.name).symlink_to(path)
    target = prepare_small(GTA5, frames, tmp_path / "prepared", labels="none")
    assert target.metadata["sizes"] == {"1914x1046": 1, "1914x1052": 1}
    assert target.names == ["images/03136.png", "images/21344.png"]
