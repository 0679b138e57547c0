"""Writes a self-contained HTML page about a run: curves, scores, sample predictions and warnings.

    python -m sean_jax.report --workdir=runs/gta5

Repeat --workdir to compare runs.
"""

import pathlib

from absl import flags

from sean_jax import atomic
from sean_jax.cli import command as cli
from sean_jax.errors import UserError
from sean_jax.reporting.page import findings, render
from sean_jax.reporting.rundata import load_runs

WORKDIR = flags.DEFINE_multi_string("workdir", None, "run directory; repeat to compare runs")
OUT = flags.DEFINE_string("out", None, "HTML file to write; default: report.html in the first run directory")


def main() -> None:
    if not WORKDIR.value:
        raise UserError("--workdir is needed: a run directory of sean_jax.train; repeat it to compare runs")
    out = pathlib.Path(OUT.value or pathlib.Path(WORKDIR.value[0], "report.html"))
    if OUT.value and not out.parent.is_dir():
        raise UserError(f"--out={out}: the folder {out.parent} does not exist; create it first")
    runs = load_runs(WORKDIR.value)
    content = render(runs).encode(errors="replace")
    atomic.write(out, content)
    found = findings(runs)
    for run, text in found:
        print(f"{run}: {text}" if run and len(runs) > 1 else text)
    print(f"wrote {out}: {len(content) / 1e6:.1f} MB, {len(found)} warnings")


if __name__ == "__main__":
    cli.run(main, "sean_jax.report")
