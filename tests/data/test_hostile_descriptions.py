"""Descriptions that would take their reader's stack, time or terminal: one line says what is wrong."""

import pytest

from sean_jax.data.descriptions import read_dataset
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError

SOUND = """name = "x"
[splits.train]
images = "images/*.png"
labels = "labels/*.png"
[[classes]]
name = "a"
id = 1
"""


def changed(old: str, new: str) -> str:
    assert old in SOUND
    return SOUND.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 2000, "nested too deeply"),
        ("x = " + "[" * 30 + "]" * 30, "more than 20 deep"),
        (".".join("a" * 30) + " = 1", "more than 20 deep"),
        (".".join("a" * 20_000) + " = 1", "line 1 has more than 5000 characters"),
        (changed("id = 1", "id = " + "9" * 4900), "not valid TOML: Exceeds the limit"),
        (changed("id = 1", "id = 0x" + "f" * 4900), "more than 64 bits"),
        (changed('"a"', '"\\u001b[2J"'), r"control characters: '\\x1b\[2J'"),
        (SOUND.replace("*", "*a*a*a*a*a*"), "line 3: images is .*; expected at most .* 4 '\\*' in a name"),
        (SOUND.replace("*", "?" * 2000), "line 3: images is .*; expected at most 1000 characters"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_descriptions_are_refused(tmp_path, text, message):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match=rf"x\.toml.*{message}"):
        read_dataset(str(tmp_path / "x.toml"))


@pytest.mark.parametrize("color", [(1, 2, 256), (-1, 2, 3), (1.5, 2, 3), (float("inf"), 2, 3), (True, 2, 3)])
def test_colours_are_of_bytes(color):
    with pytest.raises(ValueError, match="a colour whose values are not 0 to 255"):
        LabelSpace.from_dict({"name": "x", "classes": ["a"], "palette": [color], "includes": [[]]})
