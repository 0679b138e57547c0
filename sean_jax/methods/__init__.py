"""Training objectives, one a file. To add a method, add its file and its line here."""

from sean_jax.methods.base import Batch, Method, Metrics, Reads, Stage, TrainState, Translators
from sean_jax.methods.cycada import CyCADA
from sean_jax.methods.cyclegan import CycleGAN
from sean_jax.methods.dacs import DACS
from sean_jax.methods.mcd import MCD
from sean_jax.methods.sac import SAC
from sean_jax.methods.sean import SEAN
from sean_jax.methods.source_only import SourceOnly

METHODS: dict[str, type[Method]] = {
    "sean": SEAN,
    "source_only": SourceOnly,
    "mcd": MCD,
    "dacs": DACS,
    "sac": SAC,
    "cyclegan": CycleGAN,
    "cycada": CyCADA,
}  # by the value of --method

__all__ = ["METHODS", "Batch", "Method", "Metrics", "Reads", "Stage", "TrainState", "Translators"]
