"""Compares this project with values that the authors' code of each system computed on seeded weights and inputs.

A family of cases is named after what it tests; see :func:`sean_jax.parity.cases.family_of`.
"""

from collections.abc import Callable, Iterator

from sean_jax.parity import cda, sean
from sean_jax.parity.cases import Case, Check

Compare = Callable[[Case], Iterator[Check]]

# SEAN's cases are named after their source, so every name that is not here is SEAN's.
FAMILIES: dict[str, Compare] = {
    "cda_losses": cda.compare,
}


def compare(case: Case, family: str) -> Iterator[Check]:
    """Recomputes a case and yields one check for each stored quantity."""
    return FAMILIES.get(family, sean.compare)(case)
