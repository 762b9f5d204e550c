"""The packages stand on each other in one direction only, and the command line starts light.

gglm ← rag ← ingest ← api: what stands to the right may import what stands to the left.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ORDER = ("gglm", "rag", "ingest", "api")
HEAVY = (
    "torch",
    "faiss",
    "transformers",
    "sentence_transformers",
    "sqlalchemy",
    "alembic",
    "fastapi",
    "pydantic",
    "numpy",
    "trafilatura",
    "pypdfium2",
    "docx",
)


def modules(root: Path) -> dict[str, Path]:
    """Every module of the four packages by its dotted name."""
    found = {}
    for package in ORDER:
        for path in (root / package).rglob("*.py"):
            if "node_modules" in path.parts:
                continue
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, at_import_time: bool = False) -> Iterator[str]:
    """Names that a module imports; at import time: not in functions, not for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif at_import_time and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ):
            continue
        else:
            yield from imported(node, at_import_time)


def test_there_is_something_to_check(root: Path) -> None:
    assert {"gglm.model", "rag.types", "ingest", "api.cli"} <= set(modules(root))


def test_a_package_imports_only_from_below(root: Path) -> None:
    wrong = []
    for name, path in modules(root).items():
        rank = ORDER.index(name.split(".")[0])
        for target in imported(ast.parse(path.read_text(encoding="utf-8"))):
            package = target.split(".")[0]
            if package in ORDER and ORDER.index(package) > rank:
                wrong.append(f"{name} imports {target}")
            if package in ("tests", "benchmarks"):
                wrong.append(f"{name} imports {target}")
    assert not wrong, wrong


def test_no_modules_import_each_other_in_a_circle(root: Path) -> None:
    known = modules(root)
    graph = {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), at_import_time=True)) & (known.keys() - {name})
        for name, path in known.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_walker_sees_imports() -> None:
    code = ast.parse("import rag.types\ndef f():\n    from api import app")
    assert {"rag.types", "api.app"} <= set(imported(code))
    assert set(imported(code, at_import_time=True)) == {"rag.types"}


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = f"import sys, api.cli; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
