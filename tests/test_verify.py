"""Tests of the command ``verify``: parity cases agree, and changed or broken cases are reported."""

import commands
import numpy as np
import pytest
from commands import assert_refused

pytestmark = pytest.mark.xdist_group("verify")  # they share compiled programs

CASES = ("gta5_64x128.npz", "synthia_72x104.npz")


def test_shared_cases_agree(shared, session_dir, tmp_path):
    words = [f"--case={shared / 'parity' / name}" for name in CASES]
    result = commands.run(tmp_path / "output", "verify", *words)
    assert (result.code, result.said()) == (0, [])
    assert "all quantities agree" in result.stdout
    for name in CASES:
        with np.load(shared / "parity" / name) as case:
            # The command prints each stored array except names and settings.
            arrays = [key for key in case.files if case[key].ndim and key not in ("grad_names", "history")]
        part = result.stdout.split(name)[1].split(".npz")[0]
        assert all(f"  {key} " in part for key in [*arrays, "history, step 0", "history, later steps"])
    assert "OVER" not in result.stdout


def test_a_changed_value_in_the_shipped_case_is_found(session_dir, tmp_path):
    """One array is changed by 3e-4; all other quantities still agree."""
    from sean_jax.verify import PARITY

    (shipped,) = PARITY.glob("*.npz")
    with np.load(shipped) as case:
        arrays = dict(case)
    arrays["teacher_attention"] = arrays["teacher_attention"] * 1.0003
    np.savez(tmp_path / "changed.npz", **arrays)
    result = commands.run(tmp_path / "output", "verify", case=tmp_path / "changed.npz")
    assert_refused(result, "verify", "1 quantities differ", "teacher_attention", "changed.npz")
    over = [line.split()[0] for line in result.stdout.splitlines() if line.endswith("OVER")]
    assert over == ["teacher_attention"]
    assert "3.0e-04" in result.stdout


def test_winograd_tiles_in_every_layer_agree(monkeypatch):
    """Uses Winograd tiles in all layers of the backbone; the size of the input would select fewer."""
    from sean_jax.ops import implementation, winograd
    from sean_jax.parity.compare import compare
    from sean_jax.parity.reference import load_case
    from sean_jax.verify import PARITY

    monkeypatch.setenv(implementation.VARIABLE, "cpu")
    tiled = []
    monkeypatch.setattr(winograd, "best_tile", lambda *shape, **_: tiled.append(shape) or 4)
    (shipped,) = PARITY.glob("*.npz")
    checks = list(compare(load_case(str(shipped))))
    assert len(checks) > 20
    assert len({shape for shape, _ in tiled}) > 15
    assert [check.quantity for check in checks if not check.passed] == []


def damage_nothing(path):
    path.unlink()


def damage_all(path):
    path.write_bytes(b"")


def damage_end(path):
    path.write_bytes(path.read_bytes()[:-2000])


def damage_middle(path):
    content = bytearray(path.read_bytes())
    content[200:9000] = bytes(8800)
    path.write_bytes(content)


def keep_one(path):
    np.savez(path, seed=1)


def lose_one(path):
    with np.load(path) as case:
        np.savez(path, **{key: case[key] for key in case.files if key != "history"})


def single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


DAMAGES = (damage_nothing, damage_all, damage_end, damage_middle, keep_one, lose_one, single_array)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_case_is_reported_in_one_line(session_dir, tmp_path, damage):
    from sean_jax.verify import PARITY

    (shipped,) = PARITY.glob("*.npz")
    path = tmp_path / "case.npz"
    path.write_bytes(shipped.read_bytes())
    damage(path)
    assert_refused(commands.run(tmp_path / "output", "verify", case=path), "verify", "case.npz", "parity case")
