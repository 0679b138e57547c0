"""Labels that could be read in several ways: decided by evidence that is named, or refused with a way out."""

import data_fixtures as fixtures
import numpy as np
import pytest
from data_fixtures import COLORS, errors_of, own, prepare_small
from PIL import Image

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import TRAIN_IDS, Dataset, Split
from sean_jax.data.image_files import BadFileError
from sean_jax.data.label_files import open_label
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.data.preparation import encodings
from sean_jax.data.preparation.evidence import Layout, looks_blended

GTA5, SYNTHIA, CITYSCAPES = (DATASETS[name] for name in ("gta5", "synthia", "cityscapes"))
SIZE = (64, 32)  # width, height
REST = 200  # stands for everything else


def street(seed: int) -> np.ndarray:
    """trainIds of a street scene, and REST for one's own bonnet."""
    rng = np.random.default_rng(seed)
    label = np.full(SIZE[::-1], 10, np.uint8)  # sky
    label[8:17], label[15:19], label[19:22], label[22:] = 2, 8, 1, 0  # building, vegetation, sidewalk, road
    for class_index in (3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18):
        x, y = rng.integers(0, 60), rng.integers(11 if class_index in (6, 7) else 15, 22)
        label[y : y + 5, x : x + 4] = class_index
    label[29:, 20:44] = REST
    return label


def numbered(label: np.ndarray, classes: list[int], rest: int, first: int = 0) -> np.ndarray:
    """The label with ``classes`` numbered anew, and ``rest`` for all others."""
    table = np.full(256, rest, np.uint8)
    for number, class_index in enumerate(classes, first):
        table[class_index] = number
    return table[label]


ALL = list(range(19))
OF_SYNTHIA = [c for c in ALL if TRAIN_IDS[c] not in SYNTHIA.absent_classes]


def write(root, dataset, convert, count=4):
    """A set in the data set's folders whose labels are ``convert(street)``; returns the class of every pixel."""
    images, labels = ("RGB", "GT/LABELS") if dataset is SYNTHIA else ("images", "labels")
    for i in range(count):
        fixtures.save(fixtures.image(i, *SIZE), root / f"{images}/{i}.png")
        fixtures.save(convert(street(i)), root / f"{labels}/{i}.png")
    return sorted((root / labels).iterdir())


@pytest.mark.parametrize("dataset", [GTA5, SYNTHIA], ids=lambda d: d.name)
@pytest.mark.parametrize("rest", [19, 20])
def test_an_extra_class_for_the_rest_is_ignored(tmp_path, dataset, rest):
    classes = OF_SYNTHIA if dataset is SYNTHIA else ALL
    truth = [np.where(np.isin(street(i), classes), street(i), REST) for i in range(4)]
    paths = write(
        tmp_path / "data", dataset, lambda label: np.where(np.isin(label, classes), label, rest).astype(np.uint8)
    )
    found = encodings.detect(paths, dataset)
    assert (found.encoding, found.rest) == ("train_ids", {rest})
    assert f"{rest}: everything else" in found.note
    metadata = prepare_small(dataset, tmp_path / "data", tmp_path / "prepared").metadata
    assert metadata["label_encoding"] == "train_ids"
    assert any(f"{rest}: everything else" in note for note in metadata["notes"])
    for class_index in classes:
        expected = sum(int((label == class_index).sum()) for label in truth)
        assert metadata["pixels"][TRAIN_IDS[class_index]] == expected, class_index
    assert metadata["pixels"]["ignored"] == sum(int((label == REST).sum()) for label in truth)


OTHER_NUMBERS = {
    "rest first": (GTA5, ALL, 0, 1),
    "16 classes": (GTA5, OF_SYNTHIA, 255, 0),
    "16 classes, rest last": (GTA5, OF_SYNTHIA, 16, 0),
    "17 classes": (GTA5, [c for c in ALL if c not in (9, 16)], 255, 0),
    "18 classes": (GTA5, [c for c in ALL if c != 4], 255, 0),
    "17 classes, sky where vegetation is": (GTA5, [c for c in ALL if c not in (3, 4)], 255, 0),
    "13 classes": (GTA5, [c for c in OF_SYNTHIA if c not in (3, 4, 5)], 255, 0),
    "synthia's 16 without gaps": (SYNTHIA, OF_SYNTHIA, 255, 0),
    "synthia's 13 without gaps": (SYNTHIA, [c for c in OF_SYNTHIA if c not in (3, 4, 5)], 255, 0),
    "synthia's, rest last": (SYNTHIA, OF_SYNTHIA, 16, 0),
    "synthia's, rest first": (SYNTHIA, OF_SYNTHIA, 0, 1),
    "synthia with all trainIds shifted": (SYNTHIA, ALL, 0, 1),
}


@pytest.mark.parametrize("name", OTHER_NUMBERS)
def test_other_numbers_are_not_read_as_if_they_were_known(tmp_path, name):
    dataset, classes, rest, first = OTHER_NUMBERS[name]
    paths = write(tmp_path / "data", dataset, lambda label: numbered(label, classes, rest, first))
    assert encodings.detect(paths, dataset).encoding is None
    messages = [problem.message for problem in errors_of(dataset, tmp_path / "data", tmp_path / "prepared").problems]
    assert any("--label_encoding=NAME" in message and "TOML file" in message for message in messages)


@pytest.mark.parametrize("dataset", [GTA5, SYNTHIA, CITYSCAPES], ids=lambda d: d.name)
@pytest.mark.parametrize("encoding", ["ids", "train_ids"])
def test_streets_in_known_numbers_are_read(tmp_path, dataset, encoding):
    own = {name: label_id for label_id, name in dataset.label_ids.items() if name not in dataset.absent_classes}
    rest = dataset.ignored_ids[0] if encoding == "ids" else 255
    table = np.full(256, rest, np.uint8)
    for class_index, name in TRAIN_IDS.items():
        if name in own:
            table[class_index] = own[name] if encoding == "ids" else class_index
    for i in range(4):
        fixtures.save(table[street(i)], tmp_path / f"{i}.png")
    paths = sorted(tmp_path.iterdir())
    assert encodings.detect(paths, dataset)._replace(note="") == encodings.Detection(encoding)


def test_streets_upside_down_are_doubted():
    upright, upside_down = Layout(), Layout()
    for i in range(8):
        upright.add(street(i))
        upside_down.add(street(i)[::-1])
    assert upright.verdict(TRAIN_IDS)[0] == "street"
    assert upside_down.verdict(TRAIN_IDS)[0] == "no street"
    assert Layout().verdict(TRAIN_IDS)[0] == "unknown"


def test_random_labels_tell_nothing():
    """Some class lies above the sky by chance in nearly every small set of random blocks."""
    for seed in range(100):
        layout = Layout()
        for i in range(3):
            blocks = np.random.default_rng([seed, i]).integers(0, 19, (4, 8)).astype(np.uint8)
            label = blocks.repeat(4, 0).repeat(4, 1)
            label[:2] = 255  # ignored, and always at the top
            layout.add(label)
        assert layout.verdict(TRAIN_IDS)[0] == "unknown", seed


# Lossy and blended labels


def ids_of(label: np.ndarray) -> np.ndarray:
    table = np.zeros(256, np.uint8)
    table[ALL] = [*GTA5.label_ids]
    return table[label]


@pytest.mark.parametrize(
    ("name", "options"), [("x.jpg", {"quality": 95}), ("x.png", {"format": "JPEG"}), ("x.webp", {})]
)
def test_lossy_labels_are_refused(tmp_path, name, options):
    Image.fromarray(ids_of(street(0))).convert("RGB" if name == "x.webp" else "L").save(tmp_path / name, **options)
    with pytest.raises(BadFileError, match=r"lossy \w+, in which classes are blended; use the original labels"):
        open_label(tmp_path / name)
    Image.fromarray(ids_of(street(0))).convert("RGB").save(tmp_path / "y.webp", lossless=True)
    assert open_label(tmp_path / "y.webp").kind == "rgb"


@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX])
@pytest.mark.parametrize("factor", [0.4, 0.5, 1.7, 3])
def test_resized_labels_are_recognised(tmp_path, method, factor):
    for seed in range(3):
        large = Image.fromarray(ids_of(street(seed))).resize((256, 128), Image.Resampling.NEAREST)
        assert not looks_blended(np.asarray(large))
        size = (round(256 * factor), round(128 * factor))
        assert not looks_blended(np.asarray(large.resize(size, Image.Resampling.NEAREST)))
        if method != Image.Resampling.BOX or factor == 0.4:  # boxes that do not blend are nearest neighbours
            assert looks_blended(np.asarray(large.resize(size, method)))


def test_jpegs_saved_as_png_are_recognised(tmp_path):
    label = ids_of(street(0)).repeat(7, 0).repeat(7, 1)
    assert not looks_blended(label)
    Image.fromarray(label).save(tmp_path / "x.jpg", quality=75)
    with Image.open(tmp_path / "x.jpg") as image:
        assert looks_blended(np.asarray(image))


def test_blended_labels_are_reported_unless_the_user_says_otherwise(tmp_path):
    root = tmp_path / "gta5"
    for path in write(root, GTA5, ids_of):
        with Image.open(path) as image:
            image.resize((256, 128), Image.Resampling.BILINEAR).save(path)
        Image.fromarray(fixtures.image(0, 256, 128)).save(root / "images" / path.name)
    messages = {problem.message for problem in errors_of(GTA5, root, tmp_path / "prepared").problems}
    assert any(message.startswith("classes are blended where they meet") for message in messages)
    assert len(prepare_small(GTA5, root, tmp_path / "prepared", label_encoding="ids")) == 4


def test_small_labels_and_noise_do_not_look_blended():
    assert not looks_blended(fixtures.label(0, 60, 40, tuple(ALL)))
    for seed in range(20):  # poles and people a pixel wide
        assert not looks_blended(ids_of(street(seed))[::2, ::3])


def test_real_labels_do_not_look_blended(shared):
    for path in sorted((shared / "data/cityscapes/gtFine").glob("*/*/*_labelIds.png")):
        assert not looks_blended(open_label(path).values)


# Palettes


def palettes(root, orders):
    """Labels whose indices are in these orders of the classes; returns the pixels of each class."""
    pixels = np.zeros(3, int)
    for i, order in enumerate(orders):
        label = np.zeros((20, 30), np.uint8)
        label[10:], label[8:12, 5 * i : 5 * i + 9] = 1, 2
        pixels += np.bincount(label.ravel(), minlength=3)
        image = Image.fromarray(np.array([order.index(c) for c in range(3)], np.uint8)[label])
        image.putpalette([value for c in order for value in [*COLORS.values()][c]])
        (root / "labels").mkdir(parents=True, exist_ok=True)
        image.save(root / f"labels/{i}.png")
        fixtures.save(fixtures.image(i, 30, 20), root / f"images/{i}.png")
    return dict(zip(COLORS, pixels.tolist(), strict=True))


def test_a_palette_in_another_order_is_read_by_the_colours_given(tmp_path):
    pixels = palettes(tmp_path, [[0, 1, 2], [2, 0, 1], [0, 1, 2]])
    metadata = prepare_small(own(True), tmp_path, tmp_path / "prepared").metadata
    assert metadata["pixels"] == pixels | {"ignored": 0}
    assert metadata["notes"] == ["1 labels are read by their palettes' colours: the order is not that of the others"]


@pytest.mark.parametrize(
    ("colors", "orders", "message"),
    [
        (False, [[0, 1, 2], [2, 0, 1], [0, 1, 2]], "the palettes are in different orders: the colour"),
        (True, [[2, 0, 1]] * 3, "all palettes give the indices the colours of other classes"),
    ],
)
def test_palettes_that_leave_two_readings_are_refused(tmp_path, colors, orders, message):
    palettes(tmp_path, orders)
    (problem,) = errors_of(own(colors), tmp_path, tmp_path / "prepared").problems
    assert problem.message.startswith(message)
    assert "--label_encoding=ids" in problem.message
    assert len(prepare_small(own(colors), tmp_path, tmp_path / "prepared", label_encoding="ids")) == 3


def test_palettes_that_agree_are_not_doubted(tmp_path):
    palettes(tmp_path, [[2, 0, 1]] * 3)
    assert len(prepare_small(own(False), tmp_path, tmp_path / "prepared")) == 3


def test_1_bit_labels_of_white_and_black(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "x.png")
    space = LabelSpace("cracks", ("wall", "crack"), ((0, 0, 0), (255, 255, 255)), ((), ()))
    for white in (1, 255):
        ids = {0: "wall", white: "crack"}
        cracks = Dataset("cracks", {"train": Split("a/*", "b/*")}, ids, (), ("ids",), space, "train")
        found, _ = encodings.LabelReader(cracks, "ids").read(tmp_path / "x.png")
        np.testing.assert_array_equal(found, np.eye(8) * white)
