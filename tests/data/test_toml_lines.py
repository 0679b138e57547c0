"""Errors of a description name their lines, however its TOML is written."""

import pytest

from sean_jax.data.catalogue import load_dataset
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
        (INLINE, "id = 5", "id = 4", "line 3: id 4 stands in class 'car'"),
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
        (DOTTED, "id = 5", "id = 4", "line 1: id 4 stands in class 'car'"),
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
