"""Tells at the end how many crash points were tried, and what became of the callers of randomized rounds."""

from __future__ import annotations

import pytest

COUNTS = ("crash points", "crash points of recoveries")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in COUNTS:
        found: list[tuple[int, int]] = [
            value
            for report in terminalreporter.getreports("passed")
            for key, value in report.user_properties
            if key == name
        ]
        if found:
            tried, there = (sum(each) for each in zip(*found, strict=True))
            terminalreporter.write_line(f"{name}: a process was ended at {tried} of {there}, and succeeded")
    for report in terminalreporter.getreports("passed"):
        for key, value in report.user_properties:
            if key == "callers":
                terminalreporter.write_line(f"callers: {value}")
