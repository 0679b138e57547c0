import os

import pytest

from sean_jax.data.folders import default_data_dir, is_foreign
from sean_jax.data.patterns import composed, in_utf8
from sean_jax.data.prepared import PreparedSet
from sean_jax.errors import UserError


def test_prepared_data_go_to_the_variable_or_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("SEAN_JAX_DATA_DIR", raising=False)
    assert default_data_dir() == "/home/ada/sean_jax_data"
    monkeypatch.setenv("SEAN_JAX_DATA_DIR", "~/data")
    assert default_data_dir() == "/home/ada/data"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without HOME and passwd entry
    with pytest.raises(UserError, match=r"no home folder .*; give --data_dir or set \$SEAN_JAX_DATA_DIR"):
        default_data_dir()
    monkeypatch.setenv("SEAN_JAX_DATA_DIR", "/data")
    assert default_data_dir() == "/data"


def test_names_do_not_depend_on_the_locale(monkeypatch):
    """Latin-1 locales decode the two bytes of ``ü`` as two letters; runs are recognised by these names."""
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("latin-1"))
    assert in_utf8("zÃ¼rich") == "zürich"
    assert composed(("zuÌ\x88rich",)) == ("zürich",)


def test_foreign_names():
    assert all(map(is_foreign, (".git", "@eaDir", "Thumbs.db", "lost+found", "$RECYCLE.BIN", "__MACOSX")))
    assert not any(map(is_foreign, ("images", "eaDir", "a.png", "lost", "thumbs")))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(13, "Permission denied"), "ask its owner for the right to read it"),
        (OSError(24, "Too many open files"), "allow more open files"),
        (FileNotFoundError(2, "No such file or directory"), "delete it to have it prepared anew"),
    ],
)
def test_a_sound_prepared_set_is_not_to_be_deleted(tmp_path, monkeypatch, error, advice):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(type(tmp_path), "read_text", fail)
    with pytest.raises(UserError, match=advice) as raised:
        len(PreparedSet(tmp_path))
    assert ("delete" in str(raised.value)) == (error.errno == 2)
