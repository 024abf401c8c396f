"""Deterministic simulation: one number fixes a dag, what goes wrong, and every choice of the schedule.

The real machine, executions, host and coordinator run on virtual time over a
store and a world that are simulated; then an independent checker judges what
came of it. `python -m compensate.testing.simulation --help` plays histories.

The idea is FoundationDB's; switching kinds of faults off at random, so that the
rest go further, is "swarm testing" (Groce and others, 2012).
"""

from compensate.testing.simulation.generate import generate
from compensate.testing.simulation.history import History, play
from compensate.testing.simulation.scenario import Fault, NodeSpec, Scenario
from compensate.testing.simulation.sweep import Report, shrink_failure, sweep
from compensate.testing.simulation.verdict import violations

__all__ = [
    "Fault",
    "History",
    "NodeSpec",
    "Report",
    "Scenario",
    "generate",
    "play",
    "shrink_failure",
    "sweep",
    "violations",
]
