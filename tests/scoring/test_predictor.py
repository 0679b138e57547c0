"""The evaluator's confusion matrices of a split, against the network applied to each image alone."""

import builders
import jax
import numpy as np
import pytest
from PIL import Image

from sean_jax.models import Prediction
from sean_jax.scoring import predictor
from sean_jax.scoring.predictor import Example, from_halves, make_evaluator, predict, to_halves

CLASSES = 5
NETWORK = builders.method("source_only", CLASSES).network
apply = jax.jit(NETWORK.predict)


@pytest.fixture(scope="module")
def params():
    """From scratch, with a bias that makes the classes equally likely on the whole."""
    params = NETWORK.init_params(jax.random.key(0))
    noise = np.random.default_rng(1).integers(0, 256, (8, 6, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    mean = apply(params, noise).logits.mean((0, 1, 2))
    params["head"]["classifier"]["bias"] -= mean
    return params


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Seven images of one size whose labels have three; ignored pixels in each, one label with nothing else."""
    rng = np.random.default_rng(0)
    sizes = [(24, 32), (24, 32), (24, 32), (40, 48), (17, 23), (24, 32), (24, 32)]
    found = []
    for i, size in enumerate(sizes):
        image = rng.integers(0, 256, (3, 4, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        label = rng.integers(0, CLASSES, size).astype(np.uint8)
        label[rng.random(size) < 0.3] = 255
        if i == 2:
            label[:] = 255
        found.append(Example(str(i), image, label))
    return found


def brute_force(params, examples) -> np.ndarray:
    """Through NumPy: logits of one image, Pillow-free bilinear upsampling by hand, argmax, a loop over pixels."""
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    for example in examples:
        logits = np.asarray(apply(params, example.image[None]).logits[0], np.float64)
        classes = upsample(logits, example.label.shape).argmax(-1)
        for truth, predicted in zip(example.label.ravel(), classes.ravel(), strict=True):
            if truth != 255:
                matrix[truth, predicted] += 1
    return matrix


def upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corners not aligned: pixel centres at (i + 0.5) · scale − 0.5, clamped to the border."""
    for axis, length in enumerate(size):
        n = values.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
        low = np.floor(place).astype(int)
        weight = (place - low).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        high = np.minimum(low + 1, n - 1)
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 1), (1, 3), (4, 1), (2, 2)])
def test_confusion_equals_brute_force_for_any_batches(params, examples, devices, batch_size):
    evaluate = make_evaluator(NETWORK, jax.local_devices()[:devices], batch_size)
    matrix = evaluate({"network": params}, examples)["network"]
    assert matrix.dtype == np.int64
    expected = brute_force(params, examples)
    assert matrix.sum() == expected.sum() == sum((e.label != 255).sum() for e in examples)
    assert np.abs(matrix - expected).sum() <= 4  # two pixels whose logits are equal but for rounding
    assert (matrix.sum(0) > 0).sum() > 1  # the network tells some classes apart


def test_no_examples_give_an_empty_matrix(params):
    assert make_evaluator(NETWORK, jax.local_devices()[:2], 2)({"network": params}, [])["network"].sum() == 0


def test_several_networks_share_one_pass_over_the_examples(params, examples, monkeypatch):
    other = NETWORK.init_params(jax.random.key(1))
    evaluate = make_evaluator(NETWORK, jax.local_devices()[:2], 1)
    alone = [evaluate({"network": network}, examples)["network"] for network in (params, other)]
    assert not np.array_equal(*alone)
    batches = record_shards(monkeypatch)
    read = iter(examples)  # an iterator can be read once only
    with jax.transfer_guard_host_to_device("disallow"):  # no copy but those that are counted
        together = evaluate({"first": params, "second": other}, read)
    assert list(together) == ["first", "second"]
    np.testing.assert_array_equal(together["first"], alone[0])
    np.testing.assert_array_equal(together["second"], alone[1])
    assert len(batches) == 5  # of sizes 2 + 1, 1, 1, 2


def test_every_device_takes_its_images(params, examples, monkeypatch):
    """With one image per device: seven images of one size on four devices."""
    same_size = [example._replace(label=examples[0].label) for example in examples]
    batches = record_shards(monkeypatch)
    make_evaluator(NETWORK, jax.local_devices(), 1)({"network": params}, same_size)
    labelled = int((examples[0].label != 255).sum())
    counts = [[int((np.asarray(s.data) != 255).sum()) for s in b["label"].addressable_shards] for b in batches]
    assert [len({s.device for s in b["image"].addressable_shards}) for b in batches] == [4, 4]
    assert counts == [[labelled] * 4, [labelled] * 3 + [0]]


def record_shards(monkeypatch) -> list:
    """The batches that are copied to devices from now on."""
    batches, shard = [], predictor.shard

    def recording(*arguments):
        batches.append(shard(*arguments))
        return batches[-1]

    monkeypatch.setattr(predictor, "shard", recording)
    return batches


def test_counts_of_several_hosts_are_added_in_64_bits():
    hosts = np.array([[[2**31 + 5, 2**31 - 1], [0, 3]], [[2**33 + 7, 1], [2**30, 2**40 + 1]]])
    halves = np.stack([to_halves(counts) for counts in hosts])
    assert halves.dtype == np.int32
    total = from_halves(halves)
    assert total.dtype == np.int64
    assert total.tolist() == [[2**31 + 2**33 + 12, 2**31], [2**30, 2**40 + 4]]


def test_attention_comes_at_full_size_too(params, examples):
    size = (50, 70)
    prediction = predict(NETWORK, params, examples[0].image[None], size)
    assert (prediction.classes.shape, prediction.maps["attention"].shape) == ((1, *size), (1, *size))
    coarse = np.asarray(apply(params, examples[0].image[None]).maps["attention"][0])
    np.testing.assert_allclose(prediction.maps["attention"][0], upsample(coarse, size), atol=1e-5)


def test_classes_are_those_of_the_largest_logit_after_upsampling_not_before(params, examples):
    """Nearest-neighbour enlargement of classes is another picture."""
    image = examples[0].image
    classes = np.asarray(predict(NETWORK, params, image[None], image.shape[:2]).classes[0])
    coarse = np.asarray(apply(params, image[None]).logits[0]).argmax(-1).astype(np.uint8)
    enlarged = np.asarray(Image.fromarray(coarse).resize(image.shape[1::-1], Image.Resampling.NEAREST))
    assert not np.array_equal(classes, enlarged)


@pytest.mark.parametrize("size", [(37, 51), (5, 9)])
def test_large_images_in_strips_are_what_they_are_whole(monkeypatch, size):
    logits = jax.random.normal(jax.random.key(0), (2, 8, 8, 5))
    prediction = Prediction(logits, logits, {"attention": jax.nn.sigmoid(logits[..., 0])})
    whole = predictor.at_size(prediction, size)
    monkeypatch.setattr(predictor, "LARGEST", 8 * 5 * size[1] * 3)  # three rows a strip
    strips = predictor.at_size(prediction, size)
    np.testing.assert_array_equal(strips.classes, whole.classes)
    np.testing.assert_array_equal(strips.maps["attention"], whole.maps["attention"])
