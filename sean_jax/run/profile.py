"""A JAX profiler trace of some training steps (``--profile_steps``)."""

import pathlib
from typing import Any

import jax

from sean_jax.errors import UserError


def parse_steps(text: str) -> tuple[int, int]:
    """First and last step of ``a:b``.

    Raises:
      UserError: it is not two numbers with 1 ≤ a ≤ b.
    """
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"--profile_steps={text}; expected the first and the last step, such as 10:14")
    return int(first), int(last)


class Profile:
    """Records a trace of the requested steps into ``workdir/profile``, for TensorBoard or Perfetto."""

    def __init__(self, workdir: pathlib.Path, steps: tuple[int, int] | None):
        self._folder, self._steps = workdir / "profile", steps
        self._running = False

    def before(self, step: int) -> None:
        """Call it before a step is dispatched."""
        if self._steps is not None and not self._running and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, outputs: Any) -> None:
        """Call it with what the step returned; the last step is waited for, so that the trace holds it whole."""
        if self._steps is not None and step >= self._steps[1]:
            self._stop(outputs)

    def _stop(self, outputs: Any = ()) -> None:
        if self._running:
            jax.block_until_ready(outputs)
            jax.profiler.stop_trace()
            self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
