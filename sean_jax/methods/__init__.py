"""Training objectives, one a file; adding a method is adding its file and its line here."""

from sean_jax.config import Config
from sean_jax.methods.base import Method
from sean_jax.methods.sean import SEAN
from sean_jax.methods.source_only import SourceOnly
from sean_jax.models.deeplab import Segmenter

METHODS = {"sean": SEAN, "source_only": SourceOnly}


def make_method(config: Config, network: Segmenter) -> Method:
    """The method that the configuration names."""
    return METHODS[config.method](config, network)
