"""The rules of the house that can be read off the tree."""

import ast
import graphlib
import re
import subprocess
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
CORE = SRC / "compensate" / "core"

# `Coordinator` is a client and a worker in one, and is to be parted into these.
LONGEST_CLASS = 600
LONGEST_FUNCTION = 70

# Where somebody's own machine shows. In pieces, so that this file does not find itself.
MACHINE_PATHS = re.compile(r"(?<![\w.~/:-])/(?:" + r"work|tmp|root|home/\w+|Users/\w+|opt" + r")/[\w.-]+")
REGISTRY_HOSTS = re.compile(
    "|".join(
        [
            r"pythonhosted\." + "org",
            r"(?<!//)pypi\." + "org/simple",
            r"registry\.npm" + "js",
            "index" + "-url",
        ]
    )
)
LOCK_FILES = {"uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock", "package-lock.json"}

IMPURE_NAMES = {
    "asyncio",
    "contextvars",
    "json",
    "logging",
    "os",
    "random",
    "secrets",
    "sys",
    "threading",
    "time",
}
IMPURE_BUILTINS = {"print", "open", "input", "eval", "exec", "hash", "id"}
IMPURE_CALLS = {"now", "today", "utcnow", "sleep"}


@cache
def tracked() -> tuple[Path, ...]:
    """The files that git knows or would add; all files where the tree is no git checkout (an sdist)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        names = [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return tuple(sorted(path for path in names if path.is_file() and not path.is_symlink()))


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


def sources(folder: Path = SRC) -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(folder)]


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{where(path, number)}: {match.group()}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        for match in pattern.finditer(line)
    ]


def impure_uses(tree: ast.AST) -> list[tuple[int, str]]:
    """Imports and calls by which a module would touch the world."""
    uses: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name.split(".")[0] for alias in names]
                uses += [(node.lineno, module) for module in modules if module in IMPURE_NAMES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in IMPURE_NAMES:
                uses.append((node.lineno, module))
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                uses.append((node.lineno, f"{name}()"))
            case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_CALLS:
                uses.append((node.lineno, f".{name}()"))
            case ast.AsyncFunctionDef() | ast.Await():
                uses.append((node.lineno, "async"))
            case _:
                pass
    return uses


CIRCLES: frozenset[str] = frozenset(
    {
        "compensate.runtime.calls.invoke",
        "compensate.runtime.crew",
        "compensate.runtime.execution",
        "compensate.runtime.stretch",
    }
)
"""Modules that may still import each other. Nothing may be added here, and what is cut is taken out."""


def import_graph() -> dict[str, set[str]]:
    """Which modules of the package each of them imports; imports for type checkers alone count too."""
    graph = grimp.build_graph("compensate", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of a graph, its first module again at the end; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]  # each imports the next
    return []


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """The modules that an import of `start` imports, directly or not."""
    found: set[str] = set()
    open_ = [start]
    while open_:
        new = graph.get(open_.pop(), set()) - found
        found |= new
        open_ += new
    return found


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def long_definitions(tree: ast.AST, kinds: tuple[type, ...], longest: int) -> list[tuple[int, str, int]]:
    return [
        (node.lineno, node.name, lines)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and isinstance(node, kinds)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > longest
    ]


def test_the_tree_is_really_read() -> None:
    assert ROOT / "pyproject.toml" in tracked()
    assert SRC / "compensate" / "__init__.py" in sources()


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert found(MACHINE_PATHS) == []


def test_no_file_names_a_package_registry() -> None:
    assert found(REGISTRY_HOSTS) == []


def test_there_is_no_lock_file() -> None:
    assert [path.name for path in tracked() if path.name in LOCK_FILES] == []


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 20
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.+!]+( ; .+)?", line)] == []


def test_classes_are_short_enough_to_read() -> None:
    long = [
        f"{where(path, line)}: {name} has {lines} lines"
        for path in sources()
        for line, name, lines in long_definitions(ast.parse(path.read_text()), (ast.ClassDef,), LONGEST_CLASS)
    ]
    assert long == []


def test_functions_are_short_enough_to_read() -> None:
    long = [
        f"{where(path, line)}: {name} has {lines} lines"
        for path in sources()
        for line, name, lines in long_definitions(ast.parse(path.read_text()), FUNCTIONS, LONGEST_FUNCTION)
    ]
    assert long == []


def test_no_two_files_import_each_other() -> None:
    graph = import_graph()
    assert len(graph) > 100
    cut = {
        module: imported - CIRCLES if module in CIRCLES else imported for module, imported in graph.items()
    }
    assert circle(cut) == []


def test_every_circle_that_is_still_allowed_is_there() -> None:
    graph = import_graph()
    assert [module for module in sorted(CIRCLES) if module not in reached(graph, module)] == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set[str]()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, ["a", "b", "c"]),
    ],
)
def test_the_circle_rule_finds_circles(graph: dict[str, set[str]], found: list[str]) -> None:
    whole = circle(graph)
    assert sorted(set(whole)) == found
    assert all(after in graph[before] for before, after in pairwise(whole))


def test_every_source_file_says_what_it_is_for() -> None:
    silent = [where(path, 1) for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_the_core_touches_nothing_outside_itself() -> None:
    uses = [
        f"{where(path, line)}: {use}"
        for path in sources(CORE)
        for line, use in impure_uses(ast.parse(path.read_text()))
    ]
    assert uses == []


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert (SRC / "compensate" / "py.typed").is_file()


def test_no_work_is_left_in_the_source_as_a_note() -> None:
    notes: list[str] = []
    for path in sources():
        with tokenize.open(path) as file:
            notes += [
                f"{where(path, token.start[0])}: {token.string}"
                for token in tokenize.generate_tokens(file.readline)
                if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string)
            ]
    assert notes == []


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from random import choice",
        "import os.path",
        "print('hello')",
        "at = clock.now()",
        "time.sleep(1)",
        "async def run(): ...",
    ],
)
def test_the_purity_rule_catches(code: str) -> None:
    assert impure_uses(ast.parse(code))


@pytest.mark.parametrize("code", ["import msgspec", "from datetime import datetime", "deque.popleft()"])
def test_the_purity_rule_lets_pass(code: str) -> None:
    assert impure_uses(ast.parse(code)) == []


def test_the_path_rule_catches_machine_paths_and_lets_others_pass() -> None:
    assert MACHINE_PATHS.search("open('/" + "tmp/sagas.db')")
    assert MACHINE_PATHS.search("see /" + "home/ann/compensate")
    assert not MACHINE_PATHS.search("https://example.org/" + "tmp/sagas.db")
    assert not MACHINE_PATHS.search("sqlite:///sagas.db and file:///dir and $HOME/.venv")


def test_the_length_rule_counts_lines() -> None:
    body = "    x = 1\n" * LONGEST_FUNCTION
    tree = ast.parse(f"def long():\n{body}")
    assert long_definitions(tree, FUNCTIONS, LONGEST_FUNCTION)[0][1:] == ("long", LONGEST_FUNCTION + 1)
