"""The house's own pytest hooks: async tests really run, really fail, and cannot hang."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


class Outcome:
    def __init__(self, run: subprocess.CompletedProcess[str]) -> None:
        self.code = run.returncode
        self.text = run.stdout + run.stderr

    def count(self, word: str) -> int:
        found = re.findall(rf"(\d+) {word}", self.text.splitlines()[-1])
        return int(found[0]) if found else 0


def run_tests(folder: Path, source: str, *options: str, conftest: str = "") -> Outcome:
    shutil.copy(CONFTEST, folder / "conftest.py")
    with (folder / "conftest.py").open("a") as file:
        file.write(conftest)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    time_limit(s): limit\n    deep: long\n")
    (folder / "test_inner.py").write_text("import asyncio\nimport time\nimport pytest\n" + source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    return Outcome(
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    )


def test_an_async_test_runs_and_its_failure_counts(tmp_path: Path) -> None:
    outcome = run_tests(
        tmp_path,
        """
async def test_good(tmp_path):
    await asyncio.sleep(0)
    assert tmp_path.exists()
async def test_bad():
    await asyncio.sleep(0)
    assert 1 == 2
""",
    )
    assert (outcome.code, outcome.count("passed"), outcome.count("failed")) == (1, 1, 1), outcome.text


def test_an_async_property_test_runs_for_its_examples(tmp_path: Path) -> None:
    outcome = run_tests(
        tmp_path,
        """
from hypothesis import given, strategies as st
seen = []
@given(st.integers())
async def test_property(number):
    await asyncio.sleep(0)
    seen.append(number)
def test_that_it_ran():
    assert len(seen) > 50
@given(st.integers())
async def test_bad(number):
    assert number < 10
""",
    )
    assert (outcome.count("passed"), outcome.count("failed")) == (2, 1), outcome.text
    assert "number=10" in outcome.text


def test_a_hanging_async_test_fails_with_the_stacks_of_its_tasks(tmp_path: Path) -> None:
    outcome = run_tests(
        tmp_path,
        """
async def waits_for_ever():
    await asyncio.Event().wait()
@pytest.mark.time_limit(0.2)
async def test_hang():
    task = asyncio.create_task(waits_for_ever(), name="the culprit")
    await task
def test_next():
    pass
""",
    )
    assert (outcome.count("passed"), outcome.count("failed")) == (1, 1), outcome.text
    assert "still ran after 0.2 s" in outcome.text
    assert "the culprit" in outcome.text
    assert "await asyncio.Event().wait()" in outcome.text


@pytest.mark.parametrize(
    "test",
    [
        "def test_hang():\n    time.sleep(30)",
        "async def test_hang():\n    time.sleep(30)",
        "async def test_hang():\n    await asyncio.to_thread(time.sleep, 3)",
    ],
    ids=["sync", "blocked loop", "worker thread"],
)
def test_a_test_that_blocks_its_thread_fails_with_the_stacks_of_all_threads(
    tmp_path: Path, test: str
) -> None:
    outcome = run_tests(
        tmp_path,
        f"@pytest.mark.time_limit(0.2)\n{test}\ndef test_next():\n    pass\n",
        conftest="\nALARM_GRACE = 0.3\n",
    )
    assert (outcome.count("passed"), outcome.count("failed")) == (1, 1), outcome.text
    assert "StillRunning" in outcome.text
    assert "most recent call first" in outcome.text


def test_an_error_that_nobody_awaited_fails_the_test(tmp_path: Path) -> None:
    outcome = run_tests(
        tmp_path,
        """
async def breaks():
    raise LookupError("lost and found")
async def test_lost():
    task = asyncio.create_task(breaks())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
""",
    )
    assert outcome.count("failed") == 1, outcome.text
    assert "lost and found" in outcome.text


def test_deep_tests_are_deselected_not_skipped_and_run_when_asked(tmp_path: Path) -> None:
    source = "@pytest.mark.deep\ndef test_long(seed):\n    assert seed == 7\ndef test_short():\n    pass\n"
    quick = run_tests(tmp_path, source)
    deep = run_tests(tmp_path, source, "--deep", "--seed=7")
    assert (quick.count("passed"), quick.count("deselected"), quick.count("skipped")) == (1, 1, 0), quick.text
    assert deep.count("passed") == 2, deep.text
