"""File patterns: ``*`` and ``?`` stand for text within one file or folder name."""

import re

_WILDCARD = re.compile(r"[*?]")
_MEANINGS = {"*": "([^/]*)", "?": "([^/])"}


def wildcards(pattern: str) -> list[str]:
    """The wildcards of a pattern, in order."""
    return _WILDCARD.findall(pattern)


def matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression whose groups are the texts that the wildcards of ``pattern`` stand for."""
    return re.compile("".join(_MEANINGS.get(part) or re.escape(part) for part in re.split(r"([*?])", pattern)))


def fill(pattern: str, texts: tuple[str, ...]) -> str:
    """The pattern with its wildcards replaced by ``texts``, in order."""
    remaining = iter(texts)
    return _WILDCARD.sub(lambda _: next(remaining), pattern)
