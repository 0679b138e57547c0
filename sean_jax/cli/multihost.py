"""Joins the processes of a run on several hosts, by flags or as the program that started them says."""

import faulthandler
import os
import re
import socket
from typing import Any

import jax
from absl import flags

from sean_jax.cli import lost_hosts
from sean_jax.errors import UserError

_HEADING = "Several hosts"
MULTIHOST = flags.DEFINE_enum(
    "multihost",
    "auto",
    ["auto", "none"],
    "auto joins the processes that Slurm, Open MPI, Kubernetes or Cloud TPU started together; none runs alone",
    module_name=_HEADING,
)
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of host 0", module_name=_HEADING)
HOSTS = flags.DEFINE_integer("host_count", None, "number of hosts", module_name=_HEADING)
HOST = flags.DEFINE_integer("host_index", None, "index of this host, from 0", module_name=_HEADING)

_watches: list[lost_hosts.Watch] = []  # the one of this process, if it has joined others


def join() -> None:
    """Joins the other hosts, if there are any; to be called before JAX computes anything.

    Raises:
      UserError: the flags contradict each other, or JAX cannot find the other processes.
    """
    coordinator, count, index = COORDINATOR.value, HOSTS.value, HOST.value
    if coordinator is None and count is None and index is None:
        launcher = launched_by() if MULTIHOST.value == "auto" else None
        if launcher is not None:
            _join_as_launched(launcher)
        return
    if coordinator is None or count is None or index is None:
        raise UserError("several hosts need --coordinator_address, --host_count and --host_index, all of them")
    if not 0 <= index < count:
        raise UserError(f"--host_index={index} with --host_count={count}; expected an index from 0 to the count - 1")
    _initialize(coordinator_address=coordinator, num_processes=count, process_id=index)


def _initialize(**arguments: Any) -> None:
    jax.distributed.initialize(**arguments)
    faulthandler.disable()  # JAX aborts when host 0 is gone and says so; Python's stacks would bury that
    if jax.process_count() > 1:
        _watches.append(lost_hosts.Watch())


def _join_as_launched(launcher: str) -> None:
    try:
        _initialize()
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{launcher} started several processes, but JAX cannot join them: {str(error).splitlines()[0]}. "
            "Give --coordinator_address, --host_count and --host_index, or --multihost=none"
        ) from error


def launched_by() -> str | None:
    """The program that started this process as one of several, by its environment; None if there is none."""

    def count(name: str) -> int:
        return int(os.environ.get(name) or 0)

    if "SLURM_STEP_NODELIST" in os.environ and "SLURM_PROCID" in os.environ and _slurm_tasks() > 1:
        return "Slurm"
    if count("OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ:
        return "Kubernetes"
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "Cloud TPU"
    return None


def _slurm_tasks() -> int:
    """How many processes this one's job step has.

    SLURM_NTASKS, which JAX reads, may be the job's number: an interactive step has one process in a job of many. Where
    Slurm does not give the step's number, SLURM_NTASKS counts if the step's first node can be found from here.
    """
    if of_step := os.environ.get("SLURM_STEP_NUM_TASKS"):
        return int(of_step)
    node = re.match(r"([^,[]*)(?:\[(\w+))?", os.environ["SLURM_STEP_NODELIST"])
    try:
        socket.getaddrinfo("".join(filter(None, node.groups() if node else ())), None)
    except OSError:
        return 1
    return int(os.environ.get("SLURM_NTASKS") or 0)


def leave() -> None:
    """Waits for the other hosts to end: JAX aborts a host that outlives host 0."""
    if jax.process_count() > 1:
        while _watches:
            _watches.pop().stop()
        jax.distributed.shutdown()
