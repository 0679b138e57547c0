"""Parsing, help and library messages of all commands."""

import subprocess
import sys

import pytest

from sean_jax.cli.command import expand_home, one_line


def test_home_is_expanded_in_flags(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["sean_jax.train", "--workdir=~/run", "-source_dir=~", "--out=a~b", "--input=~/*.png"]
    expected = ["sean_jax.train", "--workdir=/home/ada/run", "-source_dir=/home/ada", "--out=a~b"]
    assert expand_home(words) == [*expected, "--input=/home/ada/*.png"]


def _python(program: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=kept | variables)


GROUPED = '''
"""``python -m tool``: does a thing."""
from absl import flags
from sean_jax.cli import command
flags.DEFINE_string("workdir", None, "run directory", module_name="Run")
flags.DEFINE_integer("batch_size", 1, "images per step", module_name="Data")
flags.DEFINE_bool("shuffle", None, "shuffle; default: the preset's", module_name="Data")
flags.DEFINE_integer("seed", None, "seed", module_name="Run")
flags.DEFINE_string("plain", None, "no group")
def main():
    raise AssertionError("not to be called")
command.run(main, "tool")
'''


@pytest.mark.parametrize("words", [["--help"], ["-?"], ["--no_such_flag", "--help"]])
def test_help_groups_flags_in_order_of_definition(words):
    result = _python(GROUPED, *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "python -m tool: does a thing.",
        "",
        "Run:",
        "  --workdir: run directory",
        "  --seed: seed",
        "",
        "Data:",
        "  --batch_size: images per step (default 1)",
        "  --[no]shuffle: shuffle; default: the preset's",
        "",
        "Other:",
        "  --plain: no group",
        "",
        "--helpfull also lists the flags of libraries.",
    ]


def test_helpfull_is_absls():
    result = _python(GROUPED, "--helpfull")
    assert "--verbosity" in result.stdout
    assert "--batch_size" in result.stdout


# Starts a command on a machine whose GPU JAX cannot use; the device and JAX's messages are faked.
UNUSED_GPU = """
import logging, pathlib, sys
from sean_jax.cli import command, unused_gpu
unused_gpu.DEVICES = (pathlib.Path(sys.argv.pop(1)),)
unused_gpu.importlib.metadata.entry_points = lambda group: EntryPoints if group == "jax_plugins" else ()
class Plugin: value = "jax_plugins.xla_cuda13"
EntryPoints = [Plugin] if sys.argv.pop(1) == "cuda" else []
def main():
    jax = logging.getLogger("jax._src.xla_bridge")
    jax.warning("An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed. "
                "Falling back to cpu.")
    jax.warning("CUDA backend failed to initialize:\\n%s", "no driver")
    jax.info("Unable to initialize backend 'tpu'")
    for name in ("jax._src.dispatch", "orbax", "tensorflow"):
        logging.getLogger(name).warning("chatter")
    logging.getLogger().error("chatter")
    print("done")
command.run(main, "tool", computes=True)
"""
WITHOUT_CUDA = "tool: this machine has an NVIDIA GPU, but JAX has no CUDA support"
FAILED = "jax: CUDA backend failed to initialize: no driver"
FALLING_BACK = "jax: An NVIDIA GPU may be present on this machine"


@pytest.mark.parametrize(
    ("device", "plugin", "variables", "expected"),
    [
        ("/dev/null", "none", {}, [WITHOUT_CUDA, FAILED]),
        ("/dev/null", "cuda", {}, [FALLING_BACK, FAILED]),
        ("/dev/null", "none", {"JAX_PLATFORMS": "cpu"}, [FALLING_BACK, FAILED]),
        ("/nowhere", "none", {}, [FALLING_BACK, FAILED]),
    ],
)
def test_a_gpu_that_jax_does_not_use_is_reported(device, plugin, variables, expected):
    result = _python(UNUSED_GPU, device, plugin, **variables)
    assert result.stdout == "done\n"
    lines = result.stderr.splitlines()
    assert len(lines) == len(expected), result.stderr
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)
    assert ("pip install 'sean-jax[cuda]'" in result.stderr) == (WITHOUT_CUDA in expected)


# Surroundings


def test_characters_that_the_terminal_lacks_are_no_error():
    program = "import sys; from sean_jax.cli import command; command.run(lambda: print('a \u2192 \xfc'), 'tool')"
    for encoding, expected in (("ascii", "a \\u2192 \\xfc"), ("latin-1", "a \\u2192 \xfc"), ("utf-8", "a \u2192 \xfc")):
        command = [sys.executable, "-c", program]
        variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, capture_output=True, timeout=60, check=True, env=variables)
        assert result.stdout.decode(encoding).strip() == expected


PLATFORM = "import jax; from sean_jax.cli import command; command.run(lambda: print(jax.devices()), 'tool')"


@pytest.mark.parametrize(("value", "reason"), [("nonsense", "Unable to initialize backend 'nonsense'"), ("cuda", "")])
def test_a_platform_that_is_not_installed_is_one_line(value, reason):
    result = _python(PLATFORM, JAX_PLATFORMS=value)
    if value == "cuda" and result.returncode == 0:
        pytest.skip("there is a GPU")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tool: JAX_PLATFORMS={value}, but JAX cannot use that here ({reason}")
    assert "unset it to use what there is" in line


FULL = """
import errno, sys
from absl import flags
from sean_jax.cli import command
for name in sys.argv.pop(1).split():
    (flags.DEFINE_bool if name == "native_size" else flags.DEFINE_integer)(name, None, "")
def main():
    raise [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), OSError(errno.ENOMEM, "no memory")][0]
command.run(main, "tool")
"""


@pytest.mark.parametrize(
    ("defined", "given", "advice"),
    [
        ("batch_size height width steps", (), "choose a smaller --batch_size, --height, --width"),
        ("batch_size height", ("--batch_size=1",), "choose a smaller --height"),
        ("native_size", ("--native_size",), "leave out --native_size"),
        ("native_size", (), "use smaller images, or a machine with more memory"),
    ],
)
def test_advice_on_memory_names_flags_that_the_command_has(defined, given, advice):
    for number in range(1 if given else 3):
        result = _python(FULL.replace("[0]", f"[{number}]"), defined, *given)
        assert (result.returncode, result.stderr) == (1, f"tool: out of memory; {advice}\n")


def test_a_home_that_there_is_not_is_not_made_up():
    program = "from absl import flags; from sean_jax.cli import command; import os\n"
    program += "os.path.expanduser = lambda path: path; flags.DEFINE_string('x', None, '')\n"
    result = _python(program + "command.run(lambda: print('not reached'), 'tool')", "--x=~/run")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "tool: --x=~/run: this user has no home folder; give the whole path\n"


def test_a_message_is_one_line_that_commands_no_terminal():
    """Names in it may be a file's."""
    assert one_line("no class\n 'größe'\x1b[2J\x9b1m\ud800") == r"no class 'größe'\x1b[2J\x9b1m\ud800"
    assert len(one_line("x" * 10**6)) < 5000
