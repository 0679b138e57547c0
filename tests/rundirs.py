"""What tests compare of run directories."""

import json

import jax
import numpy as np

from sean_jax.run.checkpoints import read_state


def lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def same_state(a, b) -> bool:
    pairs = zip(jax.tree.leaves(read_state(a)), jax.tree.leaves(read_state(b)), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
