"""The text of ``--help``: what the command does, then its flags by group."""

import inspect
from collections.abc import Sequence

from absl import flags

UNGROUPED = "Other"  # heading of the flags that were defined without a group


def wanted(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for help; arguments after ``--`` do not count."""
    words = list(argv[1:])
    return not {"--help", "-help", "-h", "-?"}.isdisjoint(words[: words.index("--")] if "--" in words else words)


def make(description: str, program: str) -> str:
    """``description`` and the flags defined so far.

    A flag's group is the ``module_name`` it was defined with. Groups and flags are in order of definition; flags
    without a group (absl gives them the name of the program or of the module) come last. Flags of absl and other
    libraries are left out.

    Args:
      description: a docstring; double backticks are removed.
      program: ``sys.argv[0]``, which absl takes for the group of flags of the main module.
    """
    groups: dict[str, list[flags.Flag]] = {}
    for name, found in flags.FLAGS.flags_by_module_dict().items():
        is_ours = name == program or name.startswith(("sean_jax.", "__main__"))
        if is_ours or not _is_module(name):
            groups.setdefault(UNGROUPED if is_ours else name, []).extend(found)
    if UNGROUPED in groups:
        groups[UNGROUPED] = groups.pop(UNGROUPED)  # last
    parts = [inspect.cleandoc(description.replace("``", ""))]
    for heading, found in groups.items():
        title = "Flags" if list(groups) == [UNGROUPED] else heading
        parts.append("\n".join([f"{title}:", *map(_describe, found)]))
    return "\n\n".join([*parts, "--helpfull also lists the flags of libraries."])


def _is_module(name: str) -> bool:
    """Whether it is the name or the file of a module and not a heading."""
    return name.startswith("absl") or "/" in name or ("." in name and " " not in name)


def _describe(flag: flags.Flag) -> str:
    text = f"--{'[no]' if flag.boolean else ''}{flag.name}: {flag.help or ''}"
    if flag.default is not None and "default" not in text:
        text += f" (default {flag.default})"
    return flags.text_wrap(text, indent="      ", firstline_indent="  ")
