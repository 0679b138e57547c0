"""Checks this implementation against the authors' code of each system, on stored cases of seeded weights and inputs.

For each quantity (logits, losses, gradients, …) it prints the largest relative error ‖x − reference‖ / ‖reference‖ and
its bound, and exits with code 1 if an error is larger than its bound. It computes in float32 at the highest
precision on every platform.
"""

import pathlib
from collections.abc import Iterator, Sequence

from absl import flags

from sean_jax.cli import command as cli
from sean_jax.errors import UserError
from sean_jax.parity import compare
from sean_jax.parity.cases import Case, Check, family_of, load_case

CASES = flags.DEFINE_multi_string(
    "case",
    None,
    "parity case, an .npz file; its name says what it tests; default: the bundled ones, without those in "
    "sean_jax/parity/full_width, which take minutes and up to 8 GB",
)
PARITY = pathlib.Path(__file__).parent / "parity"


def main() -> None:
    verify(CASES.value or sorted(map(str, PARITY.glob("*.npz"))))


def verify(paths: Sequence[str]) -> None:
    """Recomputes cases and prints each quantity's error beside its bound.

    Raises:
      UserError: a case cannot be read, or an error exceeds its bound.
    """
    failed = []
    for path in paths:
        case = load_case(path)
        print(path)
        print(f"  {'quantity':<44}{'largest error':>14}{'bound':>10}")
        for check in _compared(case):
            verdict = "" if check.passed else "  OVER"
            print(f"  {check.quantity:<44}{check.error:>14.1e}{check.bound:>10.0e}{verdict}", flush=True)
            if not check.passed:
                failed.append(f"{check.quantity} of {path}")
    if failed:
        raise UserError(f"{len(failed)} quantities differ from the reference by more than their bound: {failed[0]}, …")
    print("all quantities agree with the reference")


def _compared(case: Case) -> Iterator[Check]:
    """The checks of a case; an error of one that is not bundled is the file's."""
    try:
        yield from compare(case, family_of(case.path))
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        if pathlib.Path(case.path).parent.resolve() in (PARITY, PARITY / "full_width"):
            raise
        message = f"--case={case.path} does not hold what its name promises ({type(error).__name__}: {error!s:.300})"
        raise UserError(f"{message}; give a parity case") from error


if __name__ == "__main__":
    cli.run(main, "sean_jax.verify", computes=True)
