"""Tests of the watch over other hosts, with a store in place of JAX's and short times."""

import threading
import time

import jax
import pytest

from sean_jax.cli import lost_hosts
from sean_jax.cli.command import LOST_HOST


class _Store:
    """JAX's key-value store."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


@pytest.fixture
def store(monkeypatch):
    found = _Store()
    monkeypatch.setattr(lost_hosts.multihost, "get_jax_distributed_client", lambda: found)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(lost_hosts, "SILENT_SECONDS", 0.6)
    monkeypatch.setattr(lost_hosts, "_BEAT_SECONDS", 0.02)
    return found


@pytest.fixture
def ends(monkeypatch):
    """What ends the process: exceptions of threads; see :func:`sean_jax.cli.command.run`."""
    found = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(str(args.exc_value)))
    return found


def _other_host_runs(store, seconds):
    """The host with index 1 counts for some time."""
    for count in range(int(seconds / 0.05)):
        store.values["sean_jax_beats/1"] = str(count)
        time.sleep(0.05)


def test_a_host_that_falls_silent_ends_the_others(store, ends):
    watch = lost_hosts.Watch()
    _other_host_runs(store, 1.5)
    assert (ends, int(store.values["sean_jax_beats/0"]) > 3) == ([], True)
    for _ in range(400):  # 20 s: a busy machine takes its own delays for freezes
        if ends:
            break
        time.sleep(0.05)
    assert ends == [LOST_HOST]
    watch.stop()


def test_a_host_that_has_finished_is_heard_and_watches_no_more(store, ends):
    lost_hosts.Watch().stop()
    before = store.values.get("sean_jax_beats/0")
    time.sleep(1)
    assert (ends, store.values["sean_jax_beats/0"] != before) == ([], True)


def test_a_host_that_was_frozen_itself_listens_anew(store, ends, monkeypatch):
    """As when a scheduler suspends the whole job: the others have not had time to be heard."""
    watch, frozen = lost_hosts.Watch(), [0.0]
    monotonic = time.monotonic
    monkeypatch.setattr(lost_hosts.time, "monotonic", lambda: monotonic() + frozen[0])
    _other_host_runs(store, 0.3)
    frozen[0] = 100.0
    _other_host_runs(store, 0.5)
    assert ends == []
    watch.stop()
