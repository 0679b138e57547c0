"""Tells the user if JAX will not use the GPU of the machine."""

import importlib.metadata
import logging
import os
import pathlib
import sys

DEVICES = (pathlib.Path("/dev/nvidia0"), pathlib.Path("/dev/nvidiactl"), pathlib.Path("/proc/driver/nvidia/version"))
_LOGGER = "jax._src.xla_bridge"  # where JAX chooses its devices
_REPLACED = "CUDA-enabled jaxlib is not installed"  # JAX's message about what warn_about_unused_gpu has said


class _OneLine(logging.Handler):
    """Prints each message as one line on the standard error of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print("jax:", " ".join(record.getMessage().split()), file=sys.stderr)


def print_backend_messages() -> None:
    """Prints JAX's warnings about its devices, such as that it falls back to the CPU, whatever absl's verbosity."""
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    if not any(isinstance(handler, _OneLine) for handler in logger.handlers):
        logger.addHandler(_OneLine())


def warn_about_unused_gpu(command: str) -> None:
    """Prints one line if there is an NVIDIA GPU but JAX has no CUDA support.

    Prints nothing if ``$JAX_PLATFORMS`` is set: then the user has chosen, and JAX raises an error if it cannot comply.
    """
    if os.environ.get("JAX_PLATFORMS") or not any(device.exists() for device in DEVICES) or _has_cuda():
        return
    remedy = "install it with: pip install 'sean-jax[cuda]' (JAX_PLATFORMS=cpu silences this message)"
    print(
        f"{command}: this machine has an NVIDIA GPU, but JAX has no CUDA support and uses the CPU; {remedy}",
        file=sys.stderr,
    )
    logging.getLogger(_LOGGER).addFilter(lambda record: _REPLACED not in record.getMessage())


def _has_cuda() -> bool:
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any("cuda" in plugin.value for plugin in plugins)
