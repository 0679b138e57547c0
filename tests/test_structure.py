"""Tests of the package's structure: imports between floors, file lengths, and names of networks."""

import ast
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "sean_jax").rglob("*.py"))
PACKAGE = ROOT / "sean_jax" / "__init__.py"

# Modules of one floor import only from it and from lower ones. Top-level names that are not listed are commands.
FLOORS = (
    {"__init__", "compiler", "errors", "atomic", "npz", "settings", "untrusted"},
    {"cli", "minicity"},
    {"data", "ops"},
    {"models", "training"},
    {"weights", "methods"},
    {"config", "presets", "experiment"},
    {"scoring", "properties"},
    {"run"},
    {"parity", "reporting", "api"},
)


def _imports(path: pathlib.Path) -> set[pathlib.Path]:
    """The package's files that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {_file(ROOT.joinpath(*name.split("."))) for name in names if name.split(".")[0] == "sean_jax"}
    return found


def _file(path: pathlib.Path) -> pathlib.Path:
    """The file of a module; for an object in a module, the module's file."""
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else _file(path.parent)


def _floor(path: pathlib.Path) -> int:
    name = path.relative_to(PACKAGE.parent).parts[0].removesuffix(".py")
    return next((number for number, names in enumerate(FLOORS) if name in names), len(FLOORS))


def test_imports_have_no_cycle_and_never_go_up():
    graph = {path: _imports(path) for path in FILES}
    assert _file(ROOT / "sean_jax" / "errors" / "UserError") in graph[PACKAGE.parent / "run" / "loop.py"]
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a cycle
    upward = [(str(path), str(file)) for path, files in graph.items() for file in files if _floor(file) > _floor(path)]
    assert upward == []


def test_no_file_has_more_than_300_lines():
    files = [*FILES, *(ROOT / "experiments").rglob("*.py")]
    assert {str(path): n for path in files if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300} == {}


def test_only_methods_name_their_networks():
    """Parity is about SEAN, and unwrap lists keys of published checkpoints."""
    exempt = {"methods", "parity", "weights/unwrap.py"}
    found = []
    for path in FILES:
        inside = path.relative_to(PACKAGE.parent)
        if not exempt & {inside.parts[0], inside.as_posix()}:
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
            found += [(str(inside), name) for name in ("teacher", "student") if name in constants]
    assert found == []
