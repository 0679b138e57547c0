"""Errors of a description name their lines, however its TOML is written."""

import tomllib

import pytest

from sean_jax.data.catalogue import load_dataset
from sean_jax.data.toml_file import line_numbers
from sean_jax.errors import UserError

INLINE = """name = "mine"
splits = {train = {images = "a/*.png", labels = "b/*.png"}}
classes = [
  {name = "car", ids = [3, 4]},
  {name = "tree", id = 5},
]
"""
IN_SPLITS = """name = "mine"
[splits]
train = {images = "a/*.png", labels = "b/*.png"}
[[ "classes" ]]  # quoted
"name" = "car"
'ids' = [3, 4]
[[classes]]
name = "tree"
id = 5
"""
DOTTED = '''classes = [{name = "car", ids = [3, 4]}, {name = "tree", id = 5}]
name = """
mine"""
splits.train.images = "a/*.png"
splits."train".labels = "b/*.png"
[splits.rain]
images = "c/*.png"
labels = "d/*.png"
'''


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (INLINE, "b/*.png", "b", "line 2: images has the wildcards"),
        (INLINE, "labels", "label", "line 2: unknown key 'label'"),
        (INLINE, "id = 5", "id = 4", "line 3: id 4 is in class 'car'"),
        (INLINE, ", id = 5", "", "line 3: class 'tree' needs either id"),
        (IN_SPLITS, "b/*.png", "../*.png", "line 3: labels is"),
        (IN_SPLITS, "'ids' = [3, 4]", "'ids' = [\n[3],\n4]", "line 6: ids is"),
        (IN_SPLITS, "'ids'", "id", "line 6: id is"),
        (IN_SPLITS, "id = 5", "# id = 5", "line 7: class 'tree' needs either id"),
        (IN_SPLITS, "id = 5", "id = 5\nwidth = 1", "line 10: unknown key 'width'"),
        (DOTTED, "a/*.png", "/a/*.png", "line 4: images is"),
        (DOTTED, "b/*.png", "b", "line 5: images has the wildcards"),
        (DOTTED, "d/*.png", "d", "line 8: images has the wildcards"),
        (DOTTED, 'images = "c/*.png"\n', "", "line 6: expected images"),
        (DOTTED, "id = 5", "id = 4", "line 1: id 4 is in class 'car'"),
        (DOTTED, "mine", "Mine", "line 2: name is 'Mine'"),
        (DOTTED, 'name = """\nmine"""\n', "", r"mine.toml: name is None"),
    ],
)
def test_lines_of_errors_in_other_ways_to_write_toml(tmp_path, text, old, new, message):
    assert text.replace(old, new) != text
    file = tmp_path / "mine.toml"
    file.write_text(text)
    load_dataset(str(file))
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_dataset(str(file))


EVERYTHING = '''# a comment [ "
title = "x # [\\" ="  # another ] "
text = """
[no.table] " \\""" x = 1
"""""

\ta.\'b.c\' . "d e" = { f = [1, {g = 2}], h.i = "}" }
literal = \'\'\'
\\\' [
\'\'\'
numbers = [ # ]
  1, "]", {x = 1},
]
[[outer]]
[outer.sub]
key = 1979-05-27T07:32:00Z
[[outer.inner]]
y = 1
  [[ outer . "inner" ]] # [[
y = 2
[[outer]]
[[outer.inner]]
y = 3
[empty]
["q.r".s]
u = 1
'''


def test_lines_of_all_that_toml_can_say():
    lines = line_numbers(EVERYTHING)
    assert lines == {
        ("title",): 2,
        ("text",): 3,
        **{("a", "b.c", "d e")[:length]: 7 for length in (1, 2, 3)},
        **{("a", "b.c", "d e", *keys): 7 for keys in (("f",), ("f", 0), ("f", 1), ("f", 1, "g"), ("h",), ("h", "i"))},
        ("literal",): 8,
        **{("numbers", *keys): 11 for keys in ((), (0,), (1,), (2,), (2, "x"))},
        **{("outer",): 14, ("outer", 0): 14, ("outer", 0, "sub"): 15, ("outer", 0, "sub", "key"): 16},
        **{("outer", 0, "inner"): 17, ("outer", 0, "inner", 0): 17, ("outer", 0, "inner", 0, "y"): 18},
        **{("outer", 0, "inner", 1): 19, ("outer", 0, "inner", 1, "y"): 20},
        **{
            ("outer", 1): 21,
            ("outer", 1, "inner"): 22,
            ("outer", 1, "inner", 0): 22,
            ("outer", 1, "inner", 0, "y"): 23,
        },
        **{("empty",): 24, ("q.r",): 25, ("q.r", "s"): 25, ("q.r", "s", "u"): 26},
    }


def test_every_value_has_a_line():
    def check(value, keys):
        assert keys in line_numbers(EVERYTHING)
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in entries:
            check(inner, (*keys, key))

    for key, value in tomllib.loads(EVERYTHING).items():
        check(value, (key,))


def test_the_time_is_in_proportion_to_the_length():
    """Ten times the text took a hundred times as long when every prefix was parsed: minutes for this one."""
    text = "".join(f"[[classes]]\nname = 'class {number}'\nids = [{number}]\n" for number in range(5000))
    lines = line_numbers(text)
    assert lines["classes", 4999, "ids"] == 15000
