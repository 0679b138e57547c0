import os
import pathlib
import subprocess
import sys
import types

from sean_jax.cli import compilation_cache

# A program that takes long enough to compile to be kept; prints how many were found in the cache.
PROGRAM = """
import sys
from absl import flags
from sean_jax.cli import compilation_cache
flags.FLAGS(sys.argv)
compilation_cache.enable()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
jax.jit(lambda x: x @ x)(jax.numpy.ones((8, 8))).block_until_ready()
print(len(hits))
"""


def _hits(home: pathlib.Path, *flags: str, **variables: str) -> int:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "XDG_"))}
    environment = kept | {"HOME": str(home)} | variables
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def test_the_second_process_finds_what_the_first_compiled(tmp_path):
    assert _hits(tmp_path) == 0
    assert _hits(tmp_path) > 0
    assert _hits(tmp_path, "--nocompilation_cache") == 0


def test_the_folder_is_the_users(tmp_path):
    named, cache = tmp_path / "named", tmp_path / "cache"
    _hits(tmp_path, XDG_CACHE_HOME=str(cache))
    assert any((cache / "sean_jax" / "compiled").iterdir())
    _hits(tmp_path, JAX_COMPILATION_CACHE_DIR=str(named))
    assert any(named.iterdir())
    assert not (tmp_path / ".cache").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert _hits(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file")) == 0


def test_a_user_without_a_home_has_no_cache_but_a_word(monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    updated = []
    config = types.SimpleNamespace(jax_compilation_cache_dir=None, update=lambda *setting: updated.append(setting))
    monkeypatch.setattr(compilation_cache.jax, "config", config)
    compilation_cache.enable()
    assert capsys.readouterr().err == (
        "compiled programs are not kept: this user has no home folder; set $XDG_CACHE_HOME\n"
    )
    assert updated == []
