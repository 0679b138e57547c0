"""Tests of the command ``verify``: parity cases agree, and changed or broken cases are reported."""

import commands
import numpy as np
import pytest
from commands import assert_refused
from conftest import SHARED

from sean_jax import verify
from sean_jax.errors import UserError
from sean_jax.ops import implementation, winograd
from sean_jax.verify import PARITY

SHIPPED = PARITY / "gta5_64x128.npz"
QUICK = (  # the bundled cases of comparison systems that take seconds
    "cda_losses_a.npz",
    "cycada_rule_a.npz",
    "cyclegan_tables_a.npz",
    "domain_losses_a.npz",
    "fcnwild_constraints_a.npz",
)


def test_a_case_agrees_as_users_run_it(session_dir, tmp_path):
    """Runs a shared case that is not in the package, or the shipped one where there is none."""
    shared = SHARED / "parity/synthia_72x104.npz"
    path = shared if shared.exists() else SHIPPED
    result = commands.run(tmp_path / "output", "verify", case=path, optimized=True)
    assert (result.code, result.said()) == (0, [])
    assert "all quantities agree" in result.stdout
    assert "OVER" not in result.stdout
    with np.load(path) as case:
        # The command prints each stored array except names and settings.
        arrays = [key for key in case.files if case[key].ndim and key not in ("grad_names", "history")]
    assert all(f"  {key} " in result.stdout for key in [*arrays, "history, step 0", "history, later steps"])


def test_tiles_in_every_layer_agree_and_a_changed_value_is_found(tmp_path, monkeypatch, capsys):
    """The shipped case, with one array changed by 3e-4 and Winograd tiles in all layers of trunk and head.

    The size of the input would select tiles for fewer layers.
    """
    with np.load(SHIPPED) as case:
        arrays = dict(case)
    arrays["teacher_attention"] = arrays["teacher_attention"] * 1.0003
    np.savez(tmp_path / "changed.npz", **arrays)
    monkeypatch.setenv(implementation.VARIABLE, "cpu")
    tiled = []
    monkeypatch.setattr(winograd, "best_tile", lambda *shape, **_: tiled.append(shape) or 4)
    with pytest.raises(UserError, match=r"1 quantities differ .*teacher_attention of .*changed\.npz"):
        verify.verify([str(tmp_path / "changed.npz")])
    assert len({shape for shape, _ in tiled}) > 15
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) > 20
    assert [line.split()[0] for line in printed if line.endswith("OVER")] == ["teacher_attention"]
    assert any("3.0e-04" in line for line in printed)


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_case_of_a_comparison_system_agrees(name, capsys):
    verify.verify([str(PARITY / name)])
    assert "all quantities agree" in capsys.readouterr().out


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


def replace_setting(path):
    with np.load(path) as case:
        np.savez(path, **(dict(case) | {"seed": "x"}))


def enlarge(path):
    with np.load(path) as case:
        np.savez(path, **(dict(case) | {"height": 2**31}))


def hold_objects(path):
    np.savez(path, seed=np.array([print], object))


DAMAGES = (
    replace_setting,
    enlarge,
    hold_objects,
    damage_nothing,
    damage_all,
    damage_end,
    damage_middle,
    keep_one,
    lose_one,
    single_array,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_case_is_reported_in_one_line(session_dir, tmp_path, damage):
    path = tmp_path / "case.npz"
    path.write_bytes(SHIPPED.read_bytes())
    damage(path)
    assert_refused(commands.run(tmp_path / "output", "verify", case=path), "verify", "case.npz", "parity case")


def test_a_case_that_does_not_hold_what_its_name_promises_is_refused(tmp_path):
    with np.load(PARITY / "domain_losses_a.npz") as case:
        arrays = dict(case)
    np.savez(tmp_path / "domain_losses_x.npz", **(arrays | {"check_values": arrays["check_values"].astype(str)}))
    with pytest.raises(
        UserError, match=r"(?s)domain_losses_x\.npz does not hold what its name promises .*; give a parity"
    ):
        verify.verify([str(tmp_path / "domain_losses_x.npz")])
