"""Compares this project with values that the authors' code of each system computed on seeded weights and inputs.

A family of cases is named after what it tests; see :func:`sean_jax.parity.cases.family_of`.
"""

from collections.abc import Callable, Iterator
from functools import partial

from sean_jax.parity import cycada, cycada_task, cyclegan, mcd, sean
from sean_jax.parity.cases import Case, Check

Compare = Callable[[Case], Iterator[Check]]

# SEAN's cases are named after their source, so every other name is SEAN's.
FAMILIES: dict[str, Compare] = {
    "cycada_feat": partial(cycada.compare, discriminator_input="features"),
    "cycada_rule": cycada.compare_rule,
    "cycada_score": partial(cycada.compare, discriminator_input="scores"),
    "cycada_task": cycada_task.compare,
    "cyclegan_2block": cyclegan.compare,
    "cyclegan_9block": cyclegan.compare,
    "cyclegan_semantic": cyclegan.compare,
    "cyclegan_tables": cyclegan.compare_tables,
    "mcd": mcd.compare,
}


def compare(case: Case, family: str) -> Iterator[Check]:
    """Recomputes a case and yields one check for each stored quantity."""
    return FAMILIES.get(family, sean.compare)(case)
