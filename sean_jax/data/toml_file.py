"""TOML files with line numbers for error messages."""

import collections
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from sean_jax.errors import UserError
from sean_jax.untrusted import check_tree

Keys = tuple[str | int, ...]
# The parser takes memory and time by the square of the length of a dotted key, which cannot be divided into lines.
_LONGEST_LINE = 5000
# Multi-line strings, strings and comments, in which line breaks, brackets and "#" mean nothing; then
# the characters that do have a meaning. The text between the tokens is not needed.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'" r"|#[^\n]*" r"|[\[\]{}\n]",
    re.DOTALL,
)


class TomlFile:
    """A parsed TOML file that can say on which line something is wrong.

    Attributes:
      path: where it is.
      data: what it holds.
    """

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        try:
            self._text = self.path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
            for number, line in enumerate(self._text.split("\n"), 1):
                if len(line) > _LONGEST_LINE:
                    raise ValueError(f"line {number} has more than {_LONGEST_LINE} characters; divide it")
            self.data: dict[str, Any] = tomllib.loads(self._text)
            check_tree(self.data)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; expected a TOML file") from None
        except RecursionError:
            raise UserError(f"{path} holds lists or tables that are nested too deeply") from None
        except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError, too
            raise UserError(f"{path} is not valid TOML: {error}") from None

    def fail(self, message: str, *keys: str | int) -> NoReturn:
        """Raises a UserError about ``data[keys[0]][keys[1]]…``, on the line of the statement that gives its value.

        Where nothing does, the line is that of the table that should hold it.
        """
        lines = line_numbers(self._text)
        known = (lines[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in lines)
        line = next(known, None)
        raise UserError(f"{self.path}, line {line}: {message}" if line else f"{self.path}: {message}")

    def known_keys(self, table: dict[str, Any], known: tuple[str, ...], *keys: str | int) -> None:
        """Fails on a key of ``table``, which ``keys`` lead to, that is not one of ``known``."""
        for key in table:
            if key not in known:
                self.fail(f"unknown key {key!r}; expected one of {', '.join(known)}", *keys, key)


def line_numbers(text: str) -> dict[Keys, int]:
    """The lines, from 1, on which the statements of a valid TOML text begin, by the keys that each is the first to set.

    Keys lead to a value as in ``data[keys[0]][keys[1]]…``: names of tables and indices of arrays.
    """
    lines: dict[Keys, int] = {}
    lengths: collections.Counter[Keys] = collections.Counter()  # of the arrays of tables
    table: Keys = ()
    for line, statement in _statements(text):
        parsed = tomllib.loads(statement)  # a statement by itself is valid, too
        is_header, is_array = statement.startswith("["), statement.startswith("[[")
        if not is_header:
            for keys in _paths(parsed):
                lines.setdefault((*table, *keys), line)
            continue
        names = [keys[-1] for keys in _paths(parsed) if isinstance(keys[-1], str)]
        table = ()
        for depth, name in enumerate(names, 1):
            table = (*table, name)
            lines.setdefault(table, line)
            lengths[table] += is_array and depth == len(names)
            if lengths[table]:  # tables of that name are elements of an array, and the last one is meant
                table = (*table, lengths[table] - 1)
                lines.setdefault(table, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a valid TOML text, without white space around them, and the lines on which they begin."""
    begin, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(text + "\n"):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and depth == 0:
            statement = text[begin : token.start()]
            yield line, statement.strip()
            line += statement.count("\n") + 1
            begin = token.end()


def _paths(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """The keys of every value inside ``value``, each before those inside it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*keys, key)
        yield from _paths(inner, (*keys, key))
