"""What is built from the repository: its description, its extras, and what the source distribution holds."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)]*)\)")

IMPORTS = {"cli": ("click", "rich"), "pydantic": ("pydantic",)}
"""What each extra is for: the modules that the library imports from it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    return folder


def described(built: Path) -> dict[str, str]:
    """The description in the wheel and in the source distribution."""
    (wheel,) = built.glob("*.whl")
    (source,) = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith("/METADATA"))
        in_wheel = packed.read(name)
    with tarfile.open(source) as packed_source:
        (member,) = (one for one in packed_source.getmembers() if one.name.endswith("/PKG-INFO"))
        file = packed_source.extractfile(member)
        assert file is not None
        in_source = file.read()
    return {
        where: str(email.message_from_bytes(data).get_payload(decode=False))
        for where, data in (("wheel", in_wheel), ("source", in_source))
    }


@pytest.mark.slow
def test_the_description_has_no_relative_link_left(built: Path) -> None:
    source = PROJECT["urls"]["Source"]
    for where, text in described(built).items():
        links = LINK.findall(text)
        assert len(links) == len(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))) > 5
        for link in links:
            assert link.startswith("https://"), f"{where}: {link}"
            for shown in (f"{source}/blob/main/", f"{source}/raw/main/"):
                if link.startswith(shown):
                    assert (ROOT / link.removeprefix(shown).partition("#")[0]).exists(), link


@pytest.mark.slow
def test_the_source_distribution_holds_docs_tests_examples_and_what_builds_it(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert names >= {
        "docs/guide.md",
        "docs/testing.md",
        "docs/parity.md",
        "docs/rollback.svg",
        "docs/decisions/pivots.md",
        "examples/README.md",
        "tests/conftest.py",
        "scripts/_env",
        "hatch_build.py",
        "README.md",
        "ARCHITECTURE.md",
        "constraints.txt",
        "LICENSE",
    }


def test_there_is_no_extra_without_code_that_needs_it() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {*IMPORTS, "all", "dev"}
    assert set(re.findall(r"\w+", extras["all"][0].partition("[")[2])) == set(IMPORTS)
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for extra, modules in IMPORTS.items():
        assert {re.split(r"[^\w-]", one)[0] for one in extras[extra]} == set(modules)
        for module in modules:
            assert re.search(rf"""^\s*(import|from) {module}\b|["']{module}["'.]""", code, re.MULTILINE), (
                module
            )
