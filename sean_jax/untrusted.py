"""Checks of text files that anybody may have made, and that the rest of the code may then believe."""

import json
import re
from typing import Any

# Characters that command a terminal, and halves of surrogate pairs, which cannot be written to a file.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DEEPEST = 20


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: it is not JSON, or not what :func:`check_tree` allows.
    """
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_tree(tree)
    return tree


_TOO_DEEP = f"lists and tables in each other, more than {_DEEPEST} deep"


def check_tree(tree: Any) -> None:
    """Checks nested lists and dictionaries before functions that call themselves go through them.

    Raises:
      ValueError: they are too deep, or hold a number that is too long to compute with or to be printed.
    """
    level = [tree]
    for _ in range(_DEEPEST):
        if any(isinstance(value, int) and value.bit_length() > 64 for value in level):
            raise ValueError("a whole number of more than 64 bits")
        inner = (x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list))
        level = [value for values in inner for value in values]
    if level:
        raise ValueError(_TOO_DEEP)
