import io
import subprocess
import sys

import data_fixtures as fixtures
import numpy as np
import pytest
from PIL import Image

from sean_jax.data import pipeline
from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import label_map
from sean_jax.data.label_spaces import LABEL_SPACES
from sean_jax.data.preparation.builder import prepare
from sean_jax.errors import UserError

SOURCE_COUNT, TARGET_COUNT, BATCH = 5, 7, 4
LOADERS = list(pipeline.LOADERS)
STEPS = 6  # 24 places: over 3 epochs of both domains


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A source of 5 and a target of 7 examples, and the target's split with labels for scoring."""
    root = tmp_path_factory.mktemp("data")
    gta5 = fixtures.gta5(root / "gta5", SOURCE_COUNT)
    cityscapes = fixtures.cityscapes(root / "cityscapes", {"train": TARGET_COUNT})
    common = {"split": "train", "data_dir": root / "prepared", "height": 16, "width": 32, "progress": False}
    source = prepare(DATASETS["gta5"], source_dir=gta5, labels="resized", **common)
    target, scored = (
        prepare(DATASETS["cityscapes"], source_dir=cityscapes, labels=labels, **common)
        for labels in ("none", "original")
    )
    return source, target, scored


SOURCE_MAP = label_map(DATASETS["gta5"], LABEL_SPACES["16"])


def batches(sets, **settings):
    settings = {"batch_size": BATCH, "seed": 1, "start_step": 0, "stop_step": STEPS, "loader": "grain", **settings}
    return list(pipeline.training_batches(sets[0], SOURCE_MAP, sets[1], **settings))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)))


# The order


def test_each_epoch_is_a_permutation_of_its_own():
    def order(seed, domain, epoch):
        return [pipeline.example_at(20 * epoch + i, seed, domain, 20) for i in range(20)]

    base = order(0, 0, 0)
    assert sorted(base) == list(range(20))
    others = [order(1, 0, 0), order(0, 1, 0), order(0, 0, 1)]
    assert all(sorted(other) == list(range(20)) and other != base for other in others)
    assert order(0, 0, 0) == base


def test_the_order_is_fixed_for_good():
    """Frozen values: another order would break resuming runs that were begun before."""
    assert pipeline.epoch_order(0, 0, 0, 8).tolist() == FROZEN[0]
    assert pipeline.epoch_order(3, 1, 2, 8).tolist() == FROZEN[1]


FROZEN = ([2, 4, 3, 6, 5, 0, 1, 7], [5, 6, 3, 4, 7, 0, 2, 1])


# Batches


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_hold_what_the_order_says(sets, loader):
    source, target, _ = sets
    for step, batch in enumerate(batches(sets, loader=loader)):
        assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
            "source_image": (np.uint8, (BATCH, 16, 32, 3)),
            "source_label": (np.uint8, (BATCH, 16, 32)),
            "target_image": (np.uint8, (BATCH, 16, 32, 3)),
        }
        for i in range(BATCH):
            position = step * BATCH + i
            record = source.read(pipeline.example_at(position, 1, pipeline.SOURCE_DOMAIN, SOURCE_COUNT))
            np.testing.assert_array_equal(batch["source_image"][i], decode(record["image"]))
            np.testing.assert_array_equal(batch["source_label"][i], SOURCE_MAP[decode(record["label"])])
            record = target.read(pipeline.example_at(position, 1, pipeline.TARGET_DOMAIN, TARGET_COUNT))
            np.testing.assert_array_equal(batch["target_image"][i], decode(record["image"]))


def test_engines_agree_over_three_epochs_and_from_the_middle(sets):
    whole = batches(sets, loader="grain")
    assert_same(whole, batches(sets, loader="tf_data"))
    for loader in LOADERS:
        assert_same(whole[3:], batches(sets, loader=loader, start_step=3))


def test_a_late_start_reads_nothing_of_what_it_skips(sets, monkeypatch):
    reads = []
    read = type(sets[0]).read

    def counted(self, index):
        reads.append(index)
        return read(self, index)

    monkeypatch.setattr(type(sets[0]), "read", counted)
    batches(sets, start_step=10**6, stop_step=10**6 + 1)
    assert len(reads) == 2 * BATCH


@pytest.mark.parametrize("loader", LOADERS)
def test_two_hosts_read_the_halves_of_the_global_batch(sets, loader):
    shares = [batches(sets, loader=loader, host_index=i, host_count=2) for i in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shares, strict=True)]
    assert_same(joined, batches(sets))


def test_without_target_the_source_is_the_same(sets):
    alone = list(
        pipeline.training_batches(
            sets[0], SOURCE_MAP, None, batch_size=BATCH, seed=1, start_step=0, stop_step=2, loader="grain"
        )
    )
    assert all(batch.keys() == {"source_image", "source_label"} for batch in alone)
    assert_same(alone, [{k: v for k, v in b.items() if k != "target_image"} for b in batches(sets, stop_step=2)])


def test_another_seed_is_another_order(sets):
    first, second = batches(sets, stop_step=2), batches(sets, stop_step=2, seed=2)
    assert any((a["target_image"] != b["target_image"]).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("loader", LOADERS)
def test_all_256_label_values_map_on_reading(loader):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    table = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values[0]).save(buffer, "PNG")
    (element,) = pipeline.elements(loader, lambda _: {"label": buffer.getvalue()}, {"label": table}, 0, 1, None)
    np.testing.assert_array_equal(element["label"], table.reshape(16, 16))


# What must not come in


def test_target_labels_cannot_enter(sets):
    source, _, scored = sets
    with pytest.raises(ValueError, match=r"prepared with labels 'original'; training must not see them"):
        pipeline.training_batches(
            source, SOURCE_MAP, scored, batch_size=2, seed=0, start_step=0, stop_step=1, loader="grain"
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 3, "host_count": 2}, "hosts must divide the batch"),
        ({"batch_size": 4, "host_index": 2, "host_count": 2}, "host 2 of 2"),
    ],
)
def test_impossible_shares(sets, settings, message):
    with pytest.raises(ValueError, match=message):
        batches(sets, **settings)


def test_unknown_loader(sets):
    with pytest.raises(UserError, match="loader is 'torch'; expected one of tf_data, grain"):
        batches(sets, loader="torch")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_read_error_keeps_its_message(loader):
    def read(number):
        if number == 3:
            raise UserError("the prepared set is damaged")
        return {"image": png}

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    png = buffer.getvalue()
    with pytest.raises(UserError, match=r"^the prepared set is damaged$"):
        list(pipeline.elements(loader, read, {"image": None}, 0, 5, 1))


# Scoring


@pytest.mark.parametrize("loader", LOADERS)
def test_evaluation_goes_through_all_in_order(sets, loader):
    scored = sets[2]
    table = label_map(DATASETS["cityscapes"], LABEL_SPACES["19"])
    examples = list(pipeline.evaluation_examples(scored, table, loader=loader))
    assert [name for name, _, _ in examples] == scored.names
    for i, (_, image, label) in enumerate(examples):
        np.testing.assert_array_equal(image, decode(scored.read(i)["image"]))
        assert (image.shape, label.shape) == ((16, 32, 3), (32, 64))
        np.testing.assert_array_equal(label, table[decode(scored.read(i)["label"])])
    chosen = pipeline.evaluation_examples(scored, table, loader=loader, indices=[2, 0])
    assert [name for name, _, _ in chosen] == [scored.names[2], scored.names[0]]


def test_labels_of_several_sizes_can_be_scored(tmp_path):
    root = fixtures.gta5(tmp_path / "gta5")
    common = {"split": "train", "height": 16, "width": 32, "progress": False}
    prepared = prepare(DATASETS["gta5"], source_dir=root, data_dir=tmp_path / "prepared", labels="original", **common)
    for loader in LOADERS:
        shapes = [
            label.shape[::-1] for _, _, label in pipeline.evaluation_examples(prepared, SOURCE_MAP, loader=loader)
        ]
        assert shapes == list(fixtures.GTA5_SIZES)


def test_scoring_without_labels_is_refused(sets):
    with pytest.raises(ValueError, match="evaluation needs labels"):
        pipeline.evaluation_examples(sets[1], SOURCE_MAP, loader="grain")


# Without TensorFlow

SCRIPT = """
import sys
from pathlib import Path
from sean_jax.data.preparation import builder
from sean_jax.data import label_spaces as classes, catalogue as datasets, dataset, pipeline
from sean_jax.errors import UserError
gta5, root = datasets.DATASETS["gta5"], Path(sys.argv[1])
common = dict(split="train", data_dir=root / "prepared", height=16, width=32, progress=False)
source = builder.prepare(gta5, source_dir=root / "gta5", labels="resized", **common)
target = builder.prepare(datasets.DATASETS["cityscapes"], source_dir=root / "cityscapes", labels="none", **common)
table = dataset.label_map(gta5, classes.LABEL_SPACES["16"])
settings = dict(batch_size=4, seed=1, start_step=0, stop_step=6)
total = 0
for batch in pipeline.training_batches(source, table, target, loader="grain", **settings):
    total += sum(int(array.sum()) for array in batch.values())
print(total, "tensorflow" in sys.modules)
try:
    next(pipeline.training_batches(source, table, target, loader="tf_data", **settings))
except UserError as error:
    print(error)
"""


def test_preparation_and_grain_need_no_tensorflow(sets, tmp_path):
    fixtures.gta5(tmp_path / "gta5", SOURCE_COUNT)
    fixtures.cityscapes(tmp_path / "cityscapes", {"train": TARGET_COUNT})
    script = fixtures.WITHOUT_TENSORFLOW + SCRIPT
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    total = sum(int(array.sum()) for batch in batches(sets, loader="tf_data") for array in batch.values())
    assert first == f"{total} False"
    assert "install tensorflow-cpu or use --loader=grain" in second


# Two processes

SHARE = """
import sys
from pathlib import Path
import numpy as np
from sean_jax.data import label_spaces as classes, catalogue as datasets, dataset, pipeline
from sean_jax.data.prepared import PreparedSet
source, target, loader, index, out = sys.argv[1:]
table = dataset.label_map(datasets.DATASETS["gta5"], classes.LABEL_SPACES["16"])
settings = dict(batch_size=4, seed=1, start_step=0, stop_step=6, loader=loader, host_index=int(index), host_count=2)
batches = pipeline.training_batches(PreparedSet(Path(source)), table, PreparedSet(Path(target)), **settings)
joined = {}
for batch in batches:
    for key, value in batch.items():
        joined.setdefault(key, []).append(value)
np.savez(out, **{key: np.stack(values) for key, values in joined.items()})
"""


def test_two_processes_together_read_what_one_reads(sets, tmp_path):
    processes = []
    for index in range(2):
        arguments = [sets[0].directory, sets[1].directory, "grain", index, tmp_path / f"{index}.npz"]
        processes.append(subprocess.Popen([sys.executable, "-c", SHARE, *map(str, arguments)]))
    assert [process.wait() for process in processes] == [0, 0]
    shares = []
    for index in range(2):
        with np.load(tmp_path / f"{index}.npz") as share:
            shares.append(dict(share))
    for step, batch in enumerate(batches(sets)):
        for key, expected in batch.items():
            np.testing.assert_array_equal(np.concatenate([share[key][step] for share in shares]), expected)
