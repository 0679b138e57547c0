"""Options of XLA's compiler."""

from typing import Any


def options(platform: str) -> dict[str, Any] | None:
    """The ``compiler_options`` of ``jax.jit`` for a platform (JAX's name of it); None for XLA's own.

    On CPUs, XLA by default optimises its code at LLVM's highest level. That takes half as long again to compile a
    training step, which runs no faster (experiments/benchmarks/README.md).
    """
    return {"xla_backend_optimization_level": 1} if platform == "cpu" else None
