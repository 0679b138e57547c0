"""Arrays beside a prepared set: stored, checked, and batched with the images that they belong to."""

import io
import pickle

import data_fixtures as fixtures
import numpy as np
import pytest
from PIL import Image

from sean_jax.data import pipeline, statistics
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import label_map
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.data.prepared import PreparedSet, write_extra
from sean_jax.data.statistics import class_shares
from sean_jax.errors import UserError

GTA5, CITYSCAPES = DATASETS["gta5"], DATASETS["cityscapes"]
SOURCE_MAP = label_map(GTA5, LABEL_SPACES["16"])
SOURCE_COUNT, TARGET_COUNT, BATCH, STEPS = 5, 7, 4, 6
# Of several kinds and shapes; the first element of each example says which it is.
EXTRAS = {
    "superpixels": np.arange(TARGET_COUNT * 16 * 30, dtype=np.int32).reshape(TARGET_COUNT, 16, 30),
    "distribution": np.arange(TARGET_COUNT * 19).reshape(TARGET_COUNT, 19) / 7,
    "weight": np.arange(TARGET_COUNT, dtype=np.float32) / 3,
    "mask": np.arange(TARGET_COUNT * 4).reshape(TARGET_COUNT, 2, 2) % 3 == 0,
}


@pytest.fixture
def sets(tmp_path):
    source = fixtures.prepare_small(GTA5, fixtures.gta5(tmp_path / "gta5", SOURCE_COUNT), tmp_path / "prepared")
    root = fixtures.cityscapes(tmp_path / "cityscapes", {"train": TARGET_COUNT})
    target = fixtures.prepare_small(CITYSCAPES, root, tmp_path / "prepared", labels="none")
    for name, array in EXTRAS.items():
        write_extra(target, name, array)
    return source, target


def batches(sets, names=tuple(EXTRAS), **settings):
    settings = {"batch_size": BATCH, "seed": 1, "start_step": 0, "stop_step": STEPS, **settings}
    extras = {name: name for name in names}
    return list(pipeline.training_batches(sets[0], SOURCE_MAP, sets[1], target_extras=extras, **settings))


@pytest.mark.parametrize("loader", pipeline.LOADERS)
def test_extras_come_with_their_images(sets, loader):
    plain = batches(sets, names=(), loader=loader)
    for step, batch in enumerate(batches(sets, loader=loader)):
        assert batch.keys() == plain[step].keys() | {f"target_{name}" for name in EXTRAS}
        indices = [pipeline.example_at(step * BATCH + i, 1, pipeline.TARGET_DOMAIN, TARGET_COUNT) for i in range(BATCH)]
        for name, array in EXTRAS.items():
            assert batch[f"target_{name}"].dtype == array.dtype
            np.testing.assert_array_equal(batch[f"target_{name}"], array[indices])
        for name in plain[step]:
            np.testing.assert_array_equal(batch[name], plain[step][name])
        expected = np.asarray(Image.open(io.BytesIO(sets[1].read(indices[2])["image"])))
        np.testing.assert_array_equal(batch["target_image"][2], expected)


@pytest.mark.parametrize("loader", pipeline.LOADERS)
def test_two_hosts_get_the_halves_and_a_late_start_the_rest(sets, loader):
    whole = batches(sets, loader="grain")
    shares = [batches(sets, loader=loader, host_index=host, host_count=2) for host in range(2)]
    late = batches(sets, loader=loader, start_step=4)
    for name in EXTRAS:
        field = f"target_{name}"
        for step, batch in enumerate(whole):
            np.testing.assert_array_equal(np.concatenate([share[step][field] for share in shares]), batch[field])
        for step, batch in enumerate(late, 4):
            np.testing.assert_array_equal(batch[field], whole[step][field])


def test_a_missing_extra_is_named(sets):
    with pytest.raises(UserError, match=r"has no extra 'depth'; it has: distribution, mask, superpixels, weight"):
        batches(sets, names=("weight", "depth"))
    with pytest.raises(ValueError, match="extras weight of a target, and no target"):
        batches((sets[0], None), names=("weight",))


def test_an_extra_must_have_a_row_for_each_example(sets):
    target = sets[1]
    with pytest.raises(ValueError, match=r"shape \(6, 19\); expected 7 rows"):
        write_extra(target, "distribution", EXTRAS["distribution"][:6])
    for array in (np.zeros(8), np.zeros(())):
        np.save(target.directory / "extras/weight.npy", array)
        with pytest.raises(UserError, match=r"weight.npy has shape .*; expected 7 rows.*computed anew"):
            target.extra("weight")
    for content in (b"", b"junk", (target.directory / "extras/superpixels.npy").read_bytes()[:500]):
        (target.directory / "extras/weight.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"weight.npy is damaged"):
            target.extra("weight")


def test_extras_are_read_from_the_disk_as_they_are_needed(sets):
    again = pickle.loads(pickle.dumps(sets[1]))
    extra = again.extra("superpixels")
    assert isinstance(extra[0], np.memmap)
    assert not extra[0].flags.writeable
    write_extra(sets[1], "superpixels", EXTRAS["superpixels"][::-1])
    np.testing.assert_array_equal(again.extra("superpixels"), EXTRAS["superpixels"][::-1])
    np.testing.assert_array_equal(extra, EXTRAS["superpixels"])  # whoever reads the old file still has it
    assert again.read(0)["name"] == again.names[0]


def test_a_flipped_bit_in_an_extra_is_noticed_when_its_row_is_read(sets):
    """Also where the file was open before."""
    target = sets[1]
    extra, file = target.extra("superpixels"), target.directory / "extras/superpixels.npy"
    content = bytearray(file.read_bytes())
    content[content.index(EXTRAS["superpixels"][3].tobytes()) + 9] ^= 1
    with file.open("rb+") as stream:  # in place, as a disk rots
        stream.write(content)
    for damaged in (extra, target.extra("superpixels")):
        np.testing.assert_array_equal(damaged[2], EXTRAS["superpixels"][2])
        with pytest.raises(UserError, match=r"superpixels.npy is damaged \(row 3\); delete it"):
            damaged[3]
        with pytest.raises(UserError, match=r"is damaged \(row 3\)"):
            np.asarray(damaged)
    with pytest.raises(UserError, match=r"is damaged \(row 3\)"):
        batches(sets)


def test_extras_of_earlier_versions_have_no_checksums(sets):
    np.save(sets[1].directory / "extras/superpixels.npy", EXTRAS["superpixels"])
    np.testing.assert_array_equal(sets[1].extra("superpixels"), EXTRAS["superpixels"])


@pytest.mark.parametrize("name", ["../a", "a/b", "", "a.b"])
def test_names_of_extras_are_no_paths(sets, name):
    with pytest.raises(ValueError, match="expected letters, digits and underscores"):
        write_extra(sets[1], name, EXTRAS["weight"])


# Shares of classes


def test_class_shares_are_of_all_pixels_of_each_label(sets, monkeypatch):
    source = sets[0]
    shares = class_shares(source, SOURCE_MAP, 16)
    assert (shares.dtype, shares.shape) == (np.float64, (SOURCE_COUNT, 16))
    for index in range(SOURCE_COUNT):
        classes = SOURCE_MAP[np.asarray(Image.open(io.BytesIO(source.read(index).get("label", b""))))]
        np.testing.assert_array_equal(shares[index], [(classes == c).mean() for c in range(16)])
        assert shares[index].sum() == pytest.approx((classes != 255).mean())
        assert shares[index].sum() < 1  # some pixels are ignored
    monkeypatch.setattr(statistics, "ordered_map", None)  # nothing is read again
    np.testing.assert_array_equal(class_shares(PreparedSet(source.directory), SOURCE_MAP, 16), shares)


def test_class_shares_of_another_label_map_are_others(sets):
    source = sets[0]
    first = class_shares(source, SOURCE_MAP, 16)
    full = label_map(GTA5, LABEL_SPACES["19"])
    second = class_shares(source, full, 19)
    np.testing.assert_array_equal(
        second[:, LABEL_SPACES["19"].index_of("car")], first[:, LABEL_SPACES["16"].index_of("car")]
    )
    assert second.shape == (SOURCE_COUNT, 19)
    np.testing.assert_array_equal(class_shares(source, SOURCE_MAP, 16), first)


def test_class_shares_need_labels_and_no_writable_folder(sets, monkeypatch):
    with pytest.raises(ValueError, match="need labels"):
        class_shares(sets[1], SOURCE_MAP, 16)

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(statistics, "write_extra", refuse)
    assert class_shares(sets[0], SOURCE_MAP, 16).shape == (SOURCE_COUNT, 16)
