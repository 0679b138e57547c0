"""Dataclasses of settings: each field has a default and a help text, and becomes a flag, a line of config.json and,
if it is a float, an argument of the compiled step.
"""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import jax

from sean_jax.errors import UserError

_T = TypeVar("_T")
_ACCEPTED = {float: (int, float), str: (str, os.PathLike)}  # type of a setting → those of its values


def setting(default: Any, help_text: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a settings class; ``least`` and ``most`` are the bounds of a number, inclusive."""
    return dataclasses.field(default=default, metadata={"help": help_text, "least": least, "most": most})


def redefault(cls: Any, name: str, default: Any) -> Any:
    """A field that changes the default of the setting ``name`` of a base class, and nothing else."""
    return dataclasses.field(default=default, metadata=field(cls, name).metadata)


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(setting, redefault))
def settings(cls: type[_T]) -> type[_T]:
    """Class decorator: a frozen dataclass whose float fields are pytree leaves.

    A compiled function that takes such an object is reused when only floats change, so a sweep over a loss weight or
    a learning rate compiles once. The other fields are static: they may decide which operations run.
    """
    dataclass = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    names = [field.name for field in dataclasses.fields(dataclass)]  # pyright: ignore[reportArgumentType]
    leaves = [name for name in names if kind(dataclass, name) is float]
    return jax.tree_util.register_dataclass(dataclass, leaves, [name for name in names if name not in leaves])


def names(cls: Any) -> tuple[str, ...]:
    """The names of the settings of a class, in the order of their declaration."""
    return tuple(field.name for field in dataclasses.fields(cls))


def field(cls: Any, name: str) -> dataclasses.Field[Any]:
    """The dataclass field of that name."""
    return next(f for f in dataclasses.fields(cls) if f.name == name)


def choices(cls: Any, name: str) -> tuple[str, ...]:
    """The values a setting allows; empty if they are not enumerated."""
    hint = typing.get_type_hints(cls)[name]
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is Literal:
            return typing.get_args(part)
    return ()


def kind(cls: Any, name: str) -> type:
    """The plain type of a setting: bool, int, float or str."""
    hint = typing.get_type_hints(cls)[name]
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((t for t in (bool, int, float) if t in parts), str)


def check(values: Any) -> None:
    """Checks every field of a settings object against its choices and bounds.

    Raises:
      UserError: a value is not allowed; the message names the flag.
    """
    for f in dataclasses.fields(values):
        if not f.metadata:  # no setting
            continue
        value, allowed, expected = getattr(values, f.name), choices(type(values), f.name), kind(type(values), f.name)
        if value is None and type(None) in typing.get_args(typing.get_type_hints(type(values))[f.name]):
            continue
        fits = isinstance(value, _ACCEPTED.get(expected, expected))
        if not fits or isinstance(value, bool) is not (expected is bool):
            raise UserError(f"--{f.name}={value!r:.100} is of another type; expected {expected.__name__}")
        if isinstance(value, int) and value.bit_length() > 53:
            raise UserError(f"--{f.name}={value} is out of range")
        if allowed and value not in allowed:
            raise UserError(f"--{f.name}={value} is unknown; expected one of {', '.join(allowed)}")
        least, most = f.metadata.get("least"), f.metadata.get("most")
        if least is not None and not value >= least:  # also catches NaN
            raise UserError(f"--{f.name}={value} is too small; expected at least {least:g}")
        if most is not None and not value <= most:
            raise UserError(f"--{f.name}={value} is too large; expected at most {most:g}")


def from_flat(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """A settings object from those of ``values`` that it has fields for."""
    return cls(**{name: values[name] for name in names(cls) if name in values})
