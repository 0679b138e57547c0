"""Labels whose orientation tags differ from those of their images: sizes, other pairs or the user decide."""

import io

import numpy as np
import pytest
from data_fixtures import errors_of, own, prepare_small
from PIL import Image

from sean_jax.data.orientation import turn_back


def tagged(root, image_tag, label_tag, label_is, size=(40, 20), count=1, start=0):
    """Pairs whose class lies in the image's upper left quarter as it is shown; the label is ``shown`` or ``stored``."""
    for i in range(start, start + count):
        label = np.zeros(size[::-1], np.uint8)
        label[: size[1] // 2, : size[0] // 2] = 1
        label[0, 0] = 2  # no symmetry
        picture = np.stack([label * 90] * 3, -1)
        stored = np.stack([turn_back(picture[..., c], image_tag) for c in range(3)], -1)
        values = turn_back(label, label_tag if label_is == "shown" else image_tag)
        for folder, array, tag in (("images", stored, image_tag), ("labels", values, label_tag)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            exif[0x0112] = tag
            Image.fromarray(np.ascontiguousarray(array)).save(root / f"{folder}/{i}.png", exif=exif)


def assert_aligned(prepared):
    for i in range(len(prepared)):
        record = prepared.read(i)
        image, label = (np.asarray(Image.open(io.BytesIO(record[key]))) for key in ("image", "label"))
        np.testing.assert_array_equal(image[..., 0], label * 90)


@pytest.mark.parametrize("label_is", ["shown", "stored"])
@pytest.mark.parametrize("tags", [(6, 1), (8, 1), (5, 1), (1, 6), (1, 8), (6, 6), (3, 3), (3, 6), (1, 1)])
def test_sizes_tell_how_labels_are_turned(tmp_path, tags, label_is):
    tagged(tmp_path, *tags, label_is, count=2)
    prepared = prepare_small(own(False), tmp_path, tmp_path / "prepared", width=40, height=20)
    assert_aligned(prepared)
    notes = prepared.metadata["notes"]
    if tags[0] == tags[1]:
        assert notes == []
    else:
        meaning = {"shown": "by their own orientation tags", "stored": "like their images"}[label_is]
        assert notes == [f"labels are turned {meaning}, by the sizes of 2 pairs"]


@pytest.mark.parametrize("label_is", ["shown", "stored"])
@pytest.mark.parametrize("tags", [(3, 1), (2, 1), (1, 3)])
def test_where_both_ways_fit_other_pairs_or_the_user_decide(tmp_path, tags, label_is):
    tagged(tmp_path / "a", *tags, label_is, count=2)
    settings = {"width": 40, "height": 20}
    messages = [
        problem.message for problem in errors_of(own(False), tmp_path / "a", tmp_path / "data", **settings).problems
    ]
    assert all("both ways of turning it fit; choose by `prepare --label_orientation=shown`" in m for m in messages)
    for given in ({"label_orientation": label_is}, {}):  # said once, it holds
        assert_aligned(prepare_small(own(False), tmp_path / "a", tmp_path / "data", **settings, **given))
    tagged(tmp_path / "b", *tags, label_is, count=2)
    tagged(tmp_path / "b", 6, 1, label_is, start=2)  # its size tells
    assert_aligned(prepare_small(own(False), tmp_path / "b", tmp_path / "data", **settings))
