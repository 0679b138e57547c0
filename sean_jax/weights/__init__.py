"""Reads and writes weights (PyTorch, safetensors, NumPy) under the names and layouts of the authors' network."""

from sean_jax.weights.files import WeightsFile, check_output, read, write
from sean_jax.weights.names import INPUT_CONVENTIONS, identify, input_convention, is_complete, metadata
from sean_jax.weights.params import Report, from_params, into_params, sean_tensors

__all__ = [
    "INPUT_CONVENTIONS",
    "Report",
    "WeightsFile",
    "check_output",
    "from_params",
    "identify",
    "input_convention",
    "into_params",
    "is_complete",
    "metadata",
    "read",
    "sean_tensors",
    "write",
]
