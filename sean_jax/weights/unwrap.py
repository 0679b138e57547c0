"""Finds the network among the tensors of a checkpoint, whatever wraps it.

Wrappers leave traces of two kinds in the names: components that they insert anywhere (DataParallel's ``module``,
torch.compile's ``_orig_mod``), and a prefix before all names of the network (``state_dict/``, ``model.``). Both are
recognised by the first layer of VGG-16, which every supported network has.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sean_jax.errors import UserError

# Separates the names of nested dictionaries in the name of a tensor; a dot separates modules.
NESTED = "/"
# DataParallel, torch.compile, FSDP, DeepSpeed, and the dictionaries of a pickled torch.nn.Module.
_INSERTED = frozenset(
    (
        *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
        *("_modules", "_parameters", "_buffers"),
    )
)
_WRAPPERS = re.compile(r"((module|model)\.)*")
# Names of VGG-16's first layer in torchvision's and the authors' code, and in Caffe's.
_FIRST_LAYERS = (("features", "0"), ("conv1_1",))
# Words in the prefix of a network, best first: the network that is usually evaluated. Others stand in the middle.
_PREFERRED = (("teacher",), ("ema", "averaged", "average", "avg", "swa", "polyak", "shadow"))
_LAST = (
    ("student", "online"),
    ("criterion", "loss", "perceptual", "lpips", "pretrained", "imagenet", "imnet", "discriminator"),
)
# Of several networks that are otherwise alike, the first in this order is taken.
_USUAL = ("", "state_dict", "model_state_dict", "model_state", "model", "net", "network")


class Found(NamedTuple):
    """The tensors to take: their names in the file → their names in the network; and what to tell of it."""

    names: dict[str, str]
    said: str


class _Candidate(NamedTuple):
    prefix: tuple[str, ...]
    first: str  # the first layer's weight as the file names it
    bare: bool  # the layers of ``features`` without that name


def unwrap(shapes: Mapping[str, tuple[int, ...]], path: str = "") -> Found:
    """Chooses the network among all tensors of a file.

    Args:
      shapes: the shape of each tensor by its name, whose components are separated by dots and slashes.
      path: the file, for error messages.

    Returns:
      The network's tensors; if none is recognised, those of the dictionary that the network is usually in.

    Raises:
      UserError: the file holds several networks, and nothing tells which is meant.
    """
    parts = {name: tuple(re.split(r"[./]", name)) for name in shapes}
    stripped = {name: tuple(part for part in components if part not in _INSERTED) for name, components in parts.items()}
    if len(set(stripped.values())) == len(stripped):  # otherwise a wrapper's name is all that tells two networks apart
        parts = stripped
    candidates = _candidates(parts, shapes)
    if not candidates:
        return Found(_usual_dictionary(shapes), "")
    members = _members(candidates, parts)

    def rank(candidate: _Candidate) -> tuple[int, int, int, int]:
        usual = candidate.prefix[0] if candidate.prefix else ""
        place = _USUAL.index(usual) if usual in _USUAL else len(_USUAL)
        return _preference(candidate.prefix), -len(members[candidate.prefix]), place, len(candidate.prefix)

    best, *others = sorted(candidates, key=rank)
    if others and rank(others[0]) == rank(best):
        raise UserError(
            f"{path} holds several networks ({_listed([best, *others])}); save the one that is meant by itself: "
            "torch.save(network.state_dict(), ...)"
        )
    names = members[best.prefix]
    plain = names[best.first] == best.first and not others
    said = "" if plain else f"read from {best.first}" + f", not from {_listed(others, ', not from ')}" * bool(others)
    return Found(names, said)


def _listed(candidates: Sequence[_Candidate], separator: str = ", ") -> str:
    return separator.join(candidate.first for candidate in candidates[:5]) + ", …" * (len(candidates) > 5)


def _candidates(parts: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]]) -> list[_Candidate]:
    known = set(parts.values())
    named = [
        _Candidate(components[: -len(layer) - 1], name, bare=False)
        for name, components in parts.items()
        for layer in _FIRST_LAYERS
        if components[-len(layer) - 1 :] == (*layer, "weight")
    ]
    return named or [
        _Candidate(components[:-2], name, bare=True)
        for name, components in parts.items()
        if components[-2:] == ("0", "weight")
        and shapes[name][1:] == (3, 3, 3)
        and (*components[:-2], "2", "weight") in known
    ]


def _members(
    candidates: Iterable[_Candidate], parts: Mapping[str, tuple[str, ...]]
) -> dict[tuple[str, ...], dict[str, str]]:
    """By prefix: the tensors under it that are not under a longer one, and their names in the network."""
    bare = {candidate.prefix: candidate.bare for candidate in candidates}
    lengths = sorted({len(prefix) for prefix in bare}, reverse=True)
    found: dict[tuple[str, ...], dict[str, str]] = {prefix: {} for prefix in bare}
    for name, components in parts.items():
        own = next((components[:n] for n in lengths if components[:n] in bare), None)
        if own is not None:
            found[own][name] = ".".join((*["features"] * bare[own], *components[len(own) :]))
    return found


def _preference(prefix: tuple[str, ...]) -> int:
    words = {word for part in prefix for word in part.lower().split("_")}
    order = (*_LAST[::-1], *_PREFERRED)  # what is last outweighs what is preferred
    places = (*range(len(_PREFERRED) + len(_LAST), len(_PREFERRED), -1), *range(len(_PREFERRED)))
    return next((place for place, group in zip(places, order, strict=True) if words & set(group)), len(_PREFERRED))


def _usual_dictionary(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Of a file without a known network: the tensors of one dictionary, without a prefix that all of them have."""
    dictionaries: dict[str, list[str]] = {}
    for name in shapes:
        outer, _, _ = name.rpartition(NESTED)
        if not outer.startswith(("optim", "scheduler", "lr_scheduler")):
            dictionaries.setdefault(outer, []).append(name)
    if not dictionaries:
        return {}

    def rank(outer: str) -> tuple[int, int, int]:
        place = _USUAL.index(outer) if outer in _USUAL else len(_USUAL)
        return _preference(tuple(outer.split(NESTED))), place, -len(dictionaries[outer])

    outer = min(dictionaries, key=rank)
    names = {name: name.removeprefix(outer + NESTED) for name in dictionaries[outer]}
    wrappers = [match[0] for inner in names.values() if (match := _WRAPPERS.match(inner))]
    shared = os.path.commonprefix(wrappers).rfind(".") + 1  # noqa: RUF071 (character by character is what is meant)
    return {name: inner[shared:] for name, inner in names.items()}
