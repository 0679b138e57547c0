import os

import pytest

from sean_jax.data.folders import default_data_dir, is_foreign
from sean_jax.data.patterns import composed, in_utf8
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
