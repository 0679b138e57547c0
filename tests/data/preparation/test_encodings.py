import data_fixtures as fixtures
import numpy as np
import pytest
from PIL import Image

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.dataset import label_map
from sean_jax.data.image_files import BadFileError
from sean_jax.data.label_files import open_label
from sean_jax.data.label_spaces import CITYSCAPES_COLORS, LABEL_SPACES
from sean_jax.data.preparation import encodings
from sean_jax.data.preparation.encodings import LabelReader, matching_encoding

GTA5, SYNTHIA, CITYSCAPES = (DATASETS[name] for name in ("gta5", "synthia", "cityscapes"))
VALID = {"cityscapes": {*range(34), 255}, "gta5": {*range(35), 255}, "synthia": {*range(23)}}
TRAIN_IDS = {*range(19), 255}


def detect(paths, dataset):
    return encodings.detect(paths, dataset).encoding


def outcome(reader, value):
    """The trainId that a value of a file ends as, or "error"."""
    try:
        (label_id,) = reader.to_ids(np.array([value], np.int32))
    except BadFileError:
        return "error"
    return int(label_map(reader.dataset, LABEL_SPACES["19"])[label_id])


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("synthia", "red16"), *((name, encoding) for name in VALID for encoding in ("ids", "train_ids"))],
)
def test_every_value_maps_as_published_or_is_an_error(name, encoding):
    dataset = DATASETS[name]
    reader = LabelReader(dataset, encoding)
    published = label_map(dataset, LABEL_SPACES["19"])  # test_catalogue checks it against the published tables
    for value in range(1 << 16 if encoding == "red16" else 256):
        if encoding == "train_ids":
            expected = value if value in TRAIN_IDS else "error"
        else:
            expected = int(published[value]) if value in VALID[name] else "error"
        assert outcome(reader, value) == expected, value


@pytest.mark.parametrize("name", ["gta5", "cityscapes"])
def test_every_colour_of_a_class_maps_to_it(name):
    reader = LabelReader(DATASETS[name], "rgb")
    ids = np.array([[*DATASETS[name].label_ids]], np.uint8)
    red, green, blue = np.moveaxis(fixtures.to_colors(ids).astype(np.int32), -1, 0)
    np.testing.assert_array_equal(reader.to_ids(red << 16 | green << 8 | blue), ids)
    assert outcome(reader, 0) == 255
    assert outcome(reader, 0x010203) == "error"


# Telling copies apart


def written(tmp_path, name, encoding, ids=None):
    """Three label files of a data set in an encoding."""
    paths = []
    for i in range(3):
        raw = fixtures.label(i, 30, 20, ids or fixtures.valid_ids(name))
        path = tmp_path / f"{i}.png"
        if encoding == "red16":
            fixtures.save_16_bit(np.stack([raw.astype(np.uint16)] * 3, -1), path)
        elif encoding == "train_ids":
            fixtures.save(fixtures.to_train_ids(raw, name), path)
        elif encoding == "rgb":
            fixtures.save(fixtures.to_colors(raw), path)
        else:
            fixtures.save(raw, path, palette=encoding == "palette")
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *(("synthia", encoding) for encoding in ("red16", "ids", "train_ids")),
        *(("gta5", encoding) for encoding in ("palette", "ids", "train_ids", "rgb")),
        *(("cityscapes", encoding) for encoding in ("ids", "train_ids")),
    ],
)
def test_copies_are_told_apart_and_read_right(tmp_path, name, encoding):
    dataset, paths = DATASETS[name], written(tmp_path, name, encoding)
    found = detect(paths, dataset)
    assert found == ("ids" if encoding == "palette" else encoding)
    table = label_map(dataset, LABEL_SPACES["19"])
    for i, path in enumerate(paths):
        ids, form = LabelReader(dataset, found).read(path)
        assert form == encoding
        np.testing.assert_array_equal(table[ids], table[fixtures.label(i, 30, 20, fixtures.valid_ids(name))])


@pytest.mark.parametrize(
    ("name", "ids"), [("synthia", tuple(range(19))), ("gta5", (7, 8, 11)), ("cityscapes", (0, 7, 8, 11, 13))]
)
def test_values_that_fit_both_are_not_guessed_at(tmp_path, name, ids):
    assert detect(written(tmp_path, name, "ids", ids), DATASETS[name]) is None


def test_cityscapes_name_of_train_ids_tells(tmp_path):
    fixtures.save(np.array([[0, 1], [2, 255]], np.uint8), tmp_path / "a_gtFine_labelTrainIds.png")
    assert detect([tmp_path / "a_gtFine_labelTrainIds.png"], CITYSCAPES) == "train_ids"


def test_a_few_strange_files_do_not_change_what_the_others_tell(tmp_path):
    for i in range(20):
        fixtures.save(fixtures.label(i, 30, 20, fixtures.valid_ids("synthia")), tmp_path / f"{i:02}.png")
    (tmp_path / "03.png").write_bytes(b"no image")
    fixtures.save(fixtures.image(0, 30, 20), tmp_path / "04.png")
    fixtures.save(np.full((20, 30), 255, np.uint8), tmp_path / "05.png")
    paths = sorted(tmp_path.iterdir())
    assert detect(paths, SYNTHIA) == "ids"
    for i in range(6, 10):
        fixtures.save(np.full((20, 30), 255, np.uint8), tmp_path / f"{i:02}.png")
    assert detect(paths, SYNTHIA) is None  # 13 speak for ids and 5 for trainIds


def test_a_file_of_another_encoding_than_the_rest_is_an_error(tmp_path):
    path = written(tmp_path, "gta5", "train_ids")[0]
    with pytest.raises(BadFileError, match="holds train_ids where the other files hold ids"):
        LabelReader(GTA5, "ids").read(path)


def shrunk(rgb, path):
    """Writes colours as programs that shrink PNGs do: a palette of those that occur, in no order of ours."""
    image = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), rgb)  # no colour is lost
    image.save(path, optimize=True)


@pytest.mark.parametrize("name", ["gta5", "cityscapes"])
@pytest.mark.parametrize("ids", [None, (7, 8, 11, 21, 23, 26), (0, 11)])
def test_colours_in_a_palette_are_colours(tmp_path, name, ids):
    dataset, table = DATASETS[name], label_map(DATASETS[name], LABEL_SPACES["19"])
    raw = [fixtures.label(i, 30, 20, ids or fixtures.valid_ids(name)) for i in range(3)]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for labels, path in zip(raw, paths, strict=True):
        shrunk(fixtures.to_colors(labels), path)
    assert detect(paths, dataset) == "rgb"
    for labels, path in zip(raw, paths, strict=True):
        read, form = LabelReader(dataset, "rgb").read(path)
        assert form == "rgb"
        np.testing.assert_array_equal(table[read], table[labels])
    with pytest.raises(BadFileError, match="a PNG of mode P in colours; expected ids"):
        LabelReader(dataset, "ids").read(paths[0])
    if ids == (0, 11):  # indices 0 and 1, whatever a palette says of them, if a person says so
        assert set(np.unique(LabelReader(dataset, "ids", given=True).read(paths[0])[0])) == {0, 1}


# Cityscapes' colours of its own ids (34 is GTA-5's) and of trainIds.
OWN = [*[0] * 4, 0x141414, 0x6F4A00, 0x510051, 0x804080, 0xF423E8, 0xFAAAA0, 0xE6968C, 0x464646, 0x66669C, 0xBE9999]
OWN += [0xB4A5B4, 0x966464, 0x96785A, 0x999999, 0x999999, 0xFAAA1E, 0xDCDC00, 0x6B8E23, 0x98FB98, 0x4682B4, 0xDC143C]
OWN += [0xFF0000, 0x00008E, 0x000046, 0x003C64, 0x00005A, 0x00006E, 0x005064, 0x0000E6, 0x770B20, 0x00008E]
TRAIN = [red << 16 | green << 8 | blue for red, green, blue in CITYSCAPES_COLORS.values()]


GREY, BLACK = [i * 0x010101 for i in range(256)], [0] * 256


@pytest.mark.parametrize(
    ("encoding", "palette"),
    [("ids", OWN), *((encoding, palette) for encoding in ("ids", "train_ids") for palette in (TRAIN, GREY, BLACK))],
)
@pytest.mark.parametrize("name", ["gta5", "cityscapes"])
def test_indices_that_are_ids_may_have_any_palette(tmp_path, name, encoding, palette):
    dataset, table = DATASETS[name], label_map(DATASETS[name], LABEL_SPACES["19"])
    raw = fixtures.label(0, 60, 40, fixtures.valid_ids(name))
    image = Image.fromarray(raw if encoding == "ids" else fixtures.to_train_ids(raw, name))
    image.putpalette(bytes(byte for color in palette for byte in color.to_bytes(3, "big")))
    image.save(tmp_path / "x.png")
    assert detect([tmp_path / "x.png"], dataset) == encoding
    read, form = LabelReader(dataset, encoding).read(tmp_path / "x.png")
    assert form == ("palette" if encoding == "ids" else encoding)
    np.testing.assert_array_equal(table[read], table[raw])


def test_matching_encodings():
    assert matching_encoding({7, 26}, CITYSCAPES) == "ids"
    assert matching_encoding({0, 1, 2, 8, 10, 13, 255}, CITYSCAPES) == "train_ids"
    assert matching_encoding({40}, CITYSCAPES) is None
    assert matching_encoding({3, 255}, SYNTHIA) == "train_ids"
    assert matching_encoding({3, 22}, SYNTHIA) == "ids"
    assert matching_encoding({3, 22, 255}, SYNTHIA) is None


@pytest.mark.parametrize(
    ("mode", "dtype"), [("L", np.uint8), ("P", np.uint8), ("I;16", np.uint16), ("1", np.uint8), ("I", np.int32)]
)
def test_one_channel_files_of_any_depth(tmp_path, mode, dtype):
    values = np.array([[0, 1], [1, 0]], dtype)
    image = Image.fromarray(values.astype(bool) if mode == "1" else values)
    if mode == "P":
        image = image.convert("P")
    image.save(tmp_path / f"x.{'tif' if mode == 'I' else 'png'}")
    file = open_label(next(tmp_path.iterdir()))
    assert file.kind == "channel"
    np.testing.assert_array_equal(file.values, values)


def test_the_real_labels(shared):
    for path in sorted((shared / "data/cityscapes/gtFine").glob("*/*/*_labelIds.png")):
        assert detect([path], CITYSCAPES) == "ids"
        ids, _ = LabelReader(CITYSCAPES, "ids").read(path)
        np.testing.assert_array_equal(ids, np.asarray(Image.open(path)))
