"""Reads the files of a run directory: ``config.json``, ``metrics.jsonl`` and ``timing.jsonl``."""

import pathlib
from typing import Any, NamedTuple

from sean_jax.config import flatten
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError
from sean_jax.scoring.stored import is_number
from sean_jax.untrusted import parse_json


class Configuration(NamedTuple):
    """The contents of ``config.json``, with its nested settings in one flat mapping.

    Attributes:
      settings: name → value, in the order of the file.
      groups: name → the nested object that the setting stands in (``sean``, ``optimizer``); common settings are not
        listed.
    """

    settings: dict[str, Any]
    groups: dict[str, str]
    label_space: LabelSpace


def read_configuration(path: pathlib.Path) -> Configuration:
    """Reads ``config.json``.

    Raises:
      UserError: it is not the configuration of a run.
    """
    try:
        content = parse_json(path.read_bytes())
        nested = content["settings"]
        settings = flatten(nested)
        groups = {name: owner for owner, part in nested.items() if isinstance(part, dict) for name in part}
        if missing := [name for name in ("steps", "method", "source", "target") if settings.get(name) is None]:
            raise ValueError(f"{', '.join(missing)} missing")
        if not isinstance(settings["steps"], int):
            raise ValueError("steps is not a whole number")
        return Configuration(settings, groups, LabelSpace.from_dict(content["label_space"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a run's configuration ({error!r}); train anew or restore the file") from None


def read_lines(path: pathlib.Path) -> list[dict[str, float]]:
    """The lines of ``metrics.jsonl`` or ``timing.jsonl``, empty if there is no such file.

    A last line that was cut off when its process was killed is left out.

    Raises:
      UserError: another line is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [parse_line(line, path, number) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]


def parse_line(line: bytes, path: pathlib.Path, number: int) -> dict[str, float]:
    """One line of metrics; ``path`` and ``number`` (from 1) name it in errors.

    Raises:
      UserError: the line is damaged.
    """
    try:
        values = parse_json(line)
        if isinstance(values["step"], int) and values["step"] >= 0 and all(map(is_number, values.values())):
            return values
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{path}, line {number} is damaged; expected an object of numbers with a step; "
        "remove the line and run the same command again"
    )
