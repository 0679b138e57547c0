"""File patterns: ``*`` and ``?`` stand for text within one file or folder name, an extension for any case of it."""

import os
import re
import unicodedata
from collections.abc import Sequence

_WILDCARD = re.compile(r"[*?]")
_MEANINGS = {"*": "([^/]*)", "?": "([^/])"}
_EXTENSION = re.compile(r"\.[A-Za-z0-9]+$")  # without wildcards, at the end of a pattern


def wildcards(pattern: str) -> list[str]:
    """The wildcards of a pattern, in order."""
    return _WILDCARD.findall(pattern)


def matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression whose groups are the texts that the wildcards of ``pattern`` stand for."""
    stem, extension = _divided(pattern)
    parts = "".join(_MEANINGS.get(part) or re.escape(part) for part in re.split(r"([*?])", stem))
    return re.compile(f"{parts}(?i:{re.escape(extension)})" if extension else parts)


def glob_pattern(pattern: str) -> str:
    """The pattern as :meth:`pathlib.Path.glob` takes it."""
    stem, extension = _divided(pattern)
    any_case = "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in extension)
    return stem.replace("[", "[[]") + any_case  # to glob, brackets stand for a set of characters


def other_extensions(pattern: str) -> str | None:
    """The pattern of files of the same names with any extension; None if it has none itself."""
    stem, extension = _divided(pattern)
    return f"{stem}.*" if extension else None


def fill(pattern: str, texts: tuple[str, ...]) -> str:
    """The pattern with its wildcards replaced by ``texts``, in order."""
    remaining = iter(texts)
    return _WILDCARD.sub(lambda _: next(remaining), pattern)


def composed(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts in one Unicode composition: macOS writes ``ü`` as two characters, and other systems as one."""
    return tuple(unicodedata.normalize("NFC", in_utf8(text)) for text in texts)


def in_utf8(name: str) -> str:
    """A name that Python decoded by the locale's encoding, decoded as UTF-8; other bytes become surrogates."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _divided(pattern: str) -> tuple[str, str]:
    found = _EXTENSION.search(pattern)
    return (pattern[: found.start()], found[0]) if found else (pattern, "")
