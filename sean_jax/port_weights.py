"""Converts weights: PyTorch's, safetensors', NumPy's or a run's in, safetensors or NumPy out.

    python -m sean_jax.port_weights --input=vgg16-397923af.pth --output=vgg16.safetensors
    python -m sean_jax.port_weights --input=runs/gta5 --output=sean.npz --network=student

The tensors come out under the authors' names and in PyTorch's layout. No PyTorch is needed, and nothing in a file is
executed. VGG-16's 13 convolutions alone, from torchvision, timm or fcn8s_from_caffe, serve as ``--init_weights``.
"""

from pathlib import Path

from absl import flags

from sean_jax import weights
from sean_jax.cli import command as cli
from sean_jax.errors import UserError
from sean_jax.run.trained import read_run


def define_flags() -> None:
    """Defines the command's flags; not on import, where they would meet other commands' of the same name."""
    flags.DEFINE_string("input", None, ".pth, .pt, .safetensors or .npz file, or a run directory.")
    flags.DEFINE_string("output", None, ".safetensors or .npz file to write.")
    flags.DEFINE_string("network", None, "which of a run's networks; default: the one that counts")
    flags.mark_flags_as_required(["input", "output"])


def port(source: str, output: str, network: str | None = None) -> weights.Report:
    """Reads weights from a file or a run directory and writes them to ``output``.

    Args:
      source: a file that :func:`sean_jax.weights.read` takes, or a directory with ``config.json`` and ``checkpoints/``.
      output: ``.safetensors`` or ``.npz``; overwritten.
      network: which of a run's networks; None for the one that counts.

    Returns:
      Which tensors were loaded, missing and unexpected.

    Raises:
      UserError: weights that cannot be read or are not SEAN's or VGG-16's, or an output that cannot be written.
    """
    weights.check_output(output)
    if Path(source).is_dir():
        file = _read_run(source, network)
    elif network is not None:
        raise UserError(f"--network={network} chooses one of a run's networks, and {source} is no run directory")
    else:
        file = weights.read(source)
    tensors, report = weights.sean_tensors(file)
    metadata = report.metadata if file.metadata else {"format": "sean_jax", "version": 1, **report.metadata}
    weights.write(output, tensors, metadata)
    return report


def _read_run(workdir: str, network: str | None) -> weights.WeightsFile:
    if not (Path(workdir) / "config.json").is_file() or not (Path(workdir) / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no config.json and checkpoints/; give a file or a run directory")
    return read_run(workdir, network)


def main() -> None:
    """Reads the flags, converts and prints what became of each tensor."""
    flag = flags.FLAGS
    report = port(flag.input, flag.output, flag.network)
    print(f"{flag.input}: {report}\nwrote {flag.output}", flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main, "sean_jax.port_weights")
