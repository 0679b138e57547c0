import json

import pytest

from sean_jax.data.catalogue import load_label_space
from sean_jax.data.label_spaces import (
    CITYSCAPES_CLASSES,
    IGNORE_LABEL,
    LABEL_SPACES,
    LabelSpace,
    default_color,
)
from sean_jax.errors import UserError


def test_cityscapes_order_and_colours():
    space = LABEL_SPACES["19"]
    assert space.classes == CITYSCAPES_CLASSES
    assert [space.index_of(name) for name in ("road", "traffic light", "sky", "car", "bicycle")] == [0, 6, 10, 13, 18]
    assert space.palette[space.index_of("car")] == (0, 0, 142)
    assert len(set(space.palette)) == 19


def test_subsets_leave_out_the_published_classes_and_renumber_in_order():
    train_ids = {n: [CITYSCAPES_CLASSES.index(c) for c in LABEL_SPACES[n].classes] for n in ("16", "13")}
    assert train_ids["16"] == [i for i in range(19) if i not in (9, 14, 16)]
    assert train_ids["13"] == [i for i in range(19) if i not in (3, 4, 5, 9, 14, 16)]


def test_merged_classes_have_the_index_of_their_class():
    space = LabelSpace("two", ("sign", "car"), ((1, 2, 3), (4, 5, 6)), (("traffic light", "traffic sign"), ("bus",)))
    assert [space.index_of(name) for name in ("sign", "traffic light", "bus", "train")] == [0, 0, 1, IGNORE_LABEL]


def test_json_round_trip():
    space = LabelSpace("two", ("sign", "car"), ((1, 2, 3), (4, 5, 6)), (("traffic light",), ()))
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize(
    ("classes", "includes", "message"),
    [
        (("car", "car"), ((), ()), "car more than once"),
        (("car", "bus"), ((), ("car",)), "car more than once"),
        ((), (), "0 classes"),
    ],
)
def test_impossible_spaces_are_refused(classes, includes, message):
    with pytest.raises(ValueError, match=message):
        LabelSpace("x", classes, ((0, 0, 0),) * len(classes), includes)


def test_made_up_colours_differ():
    assert len({default_color("something", i) for i in range(255)}) == 255


def test_label_space_from_toml(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        'name = "few"\n[[classes]]\nname = "sign"\nincludes = ["traffic light"]\n[[classes]]\nname = "car"\n'
    )
    space = load_label_space(str(file))
    assert (space.name, space.classes, space.includes) == ("few", ("sign", "car"), (("traffic light",), ()))
    assert space.palette[1] == (0, 0, 142)


def test_unknown_space_lists_the_valid_ones():
    with pytest.raises(UserError, match=r"'20'.*19, 16, 13 or a .toml file"):
        load_label_space("20")
