"""Checks of text files that anybody may have made, and that the rest of the code may then believe."""

import json
import re
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters that command a terminal
_SURROGATE = re.compile(r"[\ud800-\udfff]")
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
      ValueError: they are too deep, or hold what cannot be written to a file or printed: half a surrogate pair, or a
        very long number.
    """
    level = [tree]
    for _ in range(_DEEPEST):
        names = [name for table in level if isinstance(table, dict) for name in table]
        if any(isinstance(text, str) and _SURROGATE.search(text) for text in (*level, *names)):
            raise ValueError("half of a surrogate pair, which is no character")
        if any(isinstance(value, int) and value.bit_length() > 64 for value in level):
            raise ValueError("a whole number of more than 64 bits")
        inner = (x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list))
        level = [value for values in inner for value in values]
    if level:
        raise ValueError(_TOO_DEEP)
