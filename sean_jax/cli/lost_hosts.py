"""Ends a run of several hosts in one line when one of them no longer answers.

JAX notices this too, but later, and aborts the process with several lines of its own. A host that crashes breaks its
connections, which the libraries report at once; one that is frozen or has lost its power or network does not.
"""

import threading
import time

import jax
from orbax.checkpoint import multihost

from sean_jax.cli.command import LOST_HOST
from sean_jax.errors import UserError

SILENT_SECONDS = 45  # a host that was silent for so long is lost
_BEAT_SECONDS = 3
_FOLDER = "sean_jax_beats"  # in JAX's key-value store, which host 0 keeps


class Watch:
    """One thread tells the other hosts that this one runs; another ends the process if one of them falls silent."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._heard = dict.fromkeys(range(jax.process_count()), now)  # when the count of each host last changed
        self._stopped = threading.Event()
        threading.Thread(target=self._exchange, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Stops watching. This host can be heard until its process ends."""
        self._stopped.set()

    def _exchange(self) -> None:
        client, counts = multihost.get_jax_distributed_client(), {}
        for count in range(2**31):
            try:
                client.key_value_set(f"{_FOLDER}/{jax.process_index()}", str(count), allow_overwrite=True)
                found = dict(client.key_value_dir_get(_FOLDER))
            except RuntimeError:  # the store is gone, and host 0 with it
                return
            for host in self._heard:
                said = found.get(f"{_FOLDER}/{host}")
                if said != counts.get(host):
                    counts[host], self._heard[host] = said, time.monotonic()
            time.sleep(_BEAT_SECONDS)

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(_BEAT_SECONDS):
            now = time.monotonic()
            if now - before > SILENT_SECONDS / 3:  # this process was frozen itself, perhaps with all others
                self._heard = dict.fromkeys(self._heard, now)
            before = now
            if now - min(self._heard.values()) > SILENT_SECONDS:
                raise UserError(LOST_HOST)  # which ends the process: the main thread may wait for that host for ever
