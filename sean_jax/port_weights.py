"""Converts weights from PyTorch, safetensors, NumPy or a run to safetensors or NumPy.

    python -m sean_jax.port_weights --input=vgg16-397923af.pth --output=vgg16.safetensors
    python -m sean_jax.port_weights --input=runs/gta5 --output=sean.npz --network=student

The output has the names and the layout of the network's PyTorch code. PyTorch is not needed, and nothing in the input
is executed. Of VGG-16 (torchvision, timm or fcn8s_from_caffe) the 13 convolutions are kept, for ``train
--init_weights``. Networks that also start from its fc6 and fc7, such as ``fcn8s``, need the original file there.
"""

from pathlib import Path

from absl import flags

from sean_jax import weights
from sean_jax.cli import command as cli
from sean_jax.errors import UserError
from sean_jax.models.inputs import CONVENTIONS
from sean_jax.run.trained import CONVENTION_HELP, read_run


def define_flags() -> None:
    """Defines the command's flags; not on import, since other modules import :func:`port` and have such flags too."""
    flags.DEFINE_string("input", None, "PyTorch, .safetensors or .npz file, or a run directory", required=True)
    flags.DEFINE_string("output", None, ".safetensors or .npz file to write", required=True)
    flags.DEFINE_string("network", None, "which of the run's networks; default: the main one")
    flags.DEFINE_enum("input_convention", None, CONVENTIONS, f"of a file: {CONVENTION_HELP}")


def port(source: str, output: str, network: str | None = None, input_convention: str | None = None) -> weights.Report:
    """Reads weights from a file or a run directory and writes them to ``output``.

    Args:
      source: a file that :func:`sean_jax.weights.read` takes, or a directory with ``config.json`` and ``checkpoints/``.
      output: ``.safetensors`` or ``.npz``; overwritten.
      network: which of a run's networks; None for the main one.
      input_convention: what a file's weights need; None to find out.

    Returns:
      Which tensors were loaded, missing and unexpected.

    Raises:
      UserError: the weights cannot be read or are neither SEAN's nor VGG-16's, or the output cannot be written.
    """
    weights.check_output(output)
    if Path(source).is_dir():
        if input_convention is not None:
            raise UserError(f"--input_convention={input_convention}: {source} is a run, which knows its own; omit it")
        file = _read_run(source, network)
    elif network is not None:
        raise UserError(f"--network={network} chooses one of a run's networks, but {source} is not a run directory")
    else:
        file = weights.read(source, input_convention)
    tensors, report = weights.sean_tensors(file)
    metadata = report.metadata if file.metadata else {"format": "sean_jax", "version": 1, **report.metadata}
    weights.write(output, tensors, metadata)
    return report


def _read_run(workdir: str, network: str | None) -> weights.WeightsFile:
    if not (Path(workdir) / "config.json").is_file() or not (Path(workdir) / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no config.json and checkpoints/; give a file or a run directory")
    return read_run(workdir, network)


def main() -> None:
    """Converts the weights and prints which tensors were loaded, missing and unexpected."""
    flag = flags.FLAGS
    report = port(flag.input, flag.output, flag.network, flag.input_convention)
    print(f"{flag.input}: {report}\nwrote {flag.output}", flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main, "sean_jax.port_weights")
