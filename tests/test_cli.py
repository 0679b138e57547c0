"""What all commands do with their words."""

from sean_jax.cli import expand_home


def test_a_flags_home_is_the_users(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["sean_jax.train", "--workdir=~/run", "-source_dir=~", "--out=a~b", "--input=~/*.png"]
    expected = ["sean_jax.train", "--workdir=/home/ada/run", "-source_dir=/home/ada", "--out=a~b"]
    assert expand_home(words) == [*expected, "--input=/home/ada/*.png"]
