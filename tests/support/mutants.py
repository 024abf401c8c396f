"""The mutants: small defects, each against a line of the guarantee. `scripts/mutants` sees the tests find them."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One defect: where, what, and which tests to ask first."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()


CORE = "src/compensate/core/"
RUNTIME = "src/compensate/runtime/"
INSPECTION = "src/compensate/inspection/"
OUTCOMES = RUNTIME + "calls/outcomes.py"
INVOKE = RUNTIME + "calls/invoke.py"
RESULTS = RUNTIME + "calls/results.py"
STORES = "src/compensate/stores/"
MACHINE_TESTS = (
    "tests/unit/test_machine_rollback.py",
    "tests/unit/test_machine_stuck.py",
    "tests/unit/test_machine_forward.py",
    "tests/unit/test_machine_shapes.py",
    "tests/unit/test_log.py",
)
DEATH_TESTS = ("tests/unit/test_machine_deaths.py", "tests/unit/test_suspects.py")
STORE_TESTS = ("tests/conformance", "tests/unit/test_sqlite_store.py")
OUTCOME_TESTS = ("tests/unit/test_outcomes.py", "tests/unit/test_outcome_matrix.py")
FAN_OUT_TESTS = ("tests/unit/test_fan_out_of_sagas.py",)
SIMULATION = ("tests/simulation",)
FIT_TESTS = ("tests/unit/test_fit.py", "tests/unit/test_parked.py", "tests/unit/test_deploys.py")
FILE_DISKS = ("tests/acceptance/test_file_disks.py",)

MUTANTS = (
    Mutant(
        "fencing off (memory)",
        STORES + "memory.py",
        "if saga.epoch != epoch or saga.last_seq != expected_seq:",
        "if saga.last_seq != expected_seq:",
        STORE_TESTS,
    ),
    Mutant(
        "sequence unchecked",
        STORES + "memory.py",
        "if saga.epoch != epoch or saga.last_seq != expected_seq:",
        "if saga.epoch != epoch:",
        STORE_TESTS,
    ),
    Mutant(
        "lease ignored",
        STORES + "memory.py",
        "return until is not None and now < until",
        "return False",
        STORE_TESTS,
    ),
    Mutant(
        "start after rollback began",
        CORE + "facts.py",
        "if self.rollback is not None and i not in self._rerun:\n            return None",
        "if False:\n            return None",
        MACHINE_TESTS,
    ),
    Mutant(
        "skipped unknown",
        CORE + "flow.py",
        'return state == s.FAILED and undo == "unknown" and not cast(e.Failed, self.errors[i]).clean',
        "return False",
        MACHINE_TESTS,
    ),
    Mutant(
        "early end",
        CORE + "machine.py",
        "        if self._due or self._lingering:\n            return\n",
        "",
        MACHINE_TESTS,
    ),
    Mutant(
        "wrong undo order",
        CORE + "flow.py",
        "                if live[dep] or dep in self._lingering:\n                    continue\n",
        "",
        MACHINE_TESTS,
    ),
    Mutant(
        "undo order cut at undo-less nodes",
        CORE + "flow.py",
        "        for i in alive:\n            for dep in deps[i]:\n",
        "        for i in alive:\n            if self.plan.kinds[i] == ACTION and not self.plan.undoable[i]:\n"
        "                continue\n            for dep in deps[i]:\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "recomputed output",
        INVOKE,
        "            output = None if data is None else bound.decode(data)\n",
        "            output = None if data is None else await bound.fn(*execution.values.arguments(bound, i)[0])\n",
        (),
    ),
    Mutant(
        "blind retry of an append",
        RUNTIME + "writing.py",
        "                return await self.read_again(events, error)\n",
        "                again = self.setting.store.append(\n"
        "                    self.machine.saga_id,\n                    self.machine.epoch,\n"
        "                    events[0].seq - 1,\n                    events,\n"
        "                    self.machine.status or s.RUNNING,\n                )\n"
        "                if again is not None:\n                    await again\n                return True\n",
        SIMULATION,
    ),
    Mutant(
        "ignored append error",
        RUNTIME + "writing.py",
        "                return await self.read_again(events, error)\n",
        "                return True\n",
        SIMULATION,
    ),
    Mutant(
        "forgotten rollback",
        CORE + "machine.py",
        '        self._record(e.SAGA_ROLLBACK, now, e.Rollback("request", who=who, why=why, grace_until=until))\n'
        "        return True",
        '        self._record(e.SAGA_ROLLBACK, now, e.Rollback("request", who=who, why=why, grace_until=until))\n'
        "        self.unsaved.pop()\n        self.seq -= 1\n        return True",
        MACHINE_TESTS,
    ),
    Mutant(
        "effect before start",
        RUNTIME + "execution.py",
        "                    if self.machine.unsaved:\n                        try:\n",
        "                    if self.machine.unsaved and not commands:\n                        try:\n",
        SIMULATION,
    ),
    Mutant(
        "clean after in-doubt",
        CORE + "facts.py",
        "if i in self.doubted and not clean:",
        "if False:",
        MACHINE_TESTS,
    ),
    Mutant(
        "lost back-off count",
        CORE + "facts.py",
        "failures = self.failures.get(i, 0) + 1\n        retry = self.plan.action(i).retry\n",
        "failures = 1\n        retry = self.plan.action(i).retry\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "lost back-off count of undos",
        CORE + "facts.py",
        "failures = self.undo_failures.get(i, 0) + 1\n",
        "failures = 1\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "stuck that stops its siblings",
        CORE + "machine.py",
        "        ready = self._ready\n        while ready and room > 0:\n",
        "        ready = self._ready\n        if self.rollback is not None and self._given_up:\n"
        "            ready.clear()\n        while ready and room > 0:\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "resolve without record",
        CORE + "machine.py",
        "        self._record_node(kind, i, 0, now, data)\n",
        "        self._record_node(kind, i, 0, now, data)\n        self.unsaved.pop()\n        self.seq -= 1\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "no effect unheard",
        CORE + "log.py",
        "        if data.clean:\n            self.doubted.discard(i)\n",
        "",
        MACHINE_TESTS,
    ),
    Mutant(
        "crash counted as a failure",
        CORE + "log.py",
        '        if data.reason in ("crash", "cut_off"):\n',
        '        if data.reason in ("crash", "cut_off") and self.failures.get(i, 0) > 99:\n',
        MACHINE_TESTS,
    ),
    Mutant(
        "pivot ignored",
        CORE + "flow.py",
        "        if self._pivots_done:\n            return False\n",
        "",
        MACHINE_TESTS,
    ),
    Mutant(
        "deadline ignored",
        CORE + "machine.py",
        "        if self._deadline() <= now:\n            self._late = True\n",
        "        if self._deadline() <= now:\n            self._late = False\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "passed time limit taken for a failure",
        OUTCOMES,
        "    if late:\n",
        "    if late and False:\n",
        OUTCOME_TESTS,
    ),
    Mutant(
        "cancellation from outside taken for an outcome",
        INVOKE,
        "cancelled = task is not None and task.cancelling() > cancels",
        "cancelled = False",
        OUTCOME_TESTS,
    ),
    Mutant(
        "shutdown taken for a failure",
        OUTCOMES,
        "    if how.abandoned or (",
        "    if (",
        OUTCOME_TESTS,
    ),
    Mutant(
        "stopped saga within an action taken for a failure",
        OUTCOMES,
        "(how.stopping and _comes_from(error, (Stopped, CancelledError)))",
        "False",
        ("tests/unit/test_cut_off.py",),
    ),
    Mutant(
        "first leaf of a group speaks for all",
        OUTCOMES,
        "    parts = list(leaves(error))\n",
        "    parts = list(leaves(error))[:1]\n",
        OUTCOME_TESTS,
    ),
    Mutant(
        "one clean leaf makes a group clean",
        OUTCOMES,
        "    if all(is_a(part, NoEffect)",
        "    if any(is_a(part, NoEffect)",
        OUTCOME_TESTS,
    ),
    Mutant(
        "named classes leave no doubt",
        OUTCOMES,
        "(*_ANOTHER_SAGA, *unknown)",
        "_ANOTHER_SAGA",
        OUTCOME_TESTS,
    ),
    Mutant(
        "errors of other sagas are clean",
        OUTCOMES,
        "(*_ANOTHER_SAGA, *unknown)",
        "unknown",
        OUTCOME_TESTS,
    ),
    Mutant(
        "awaitable of an undo thrown away",
        RESULTS,
        "        if not inspect.isawaitable(result):\n",
        "        if True:\n",
        OUTCOME_TESTS,
    ),
    Mutant(
        "work that an undo returned and nobody has done counts as done",
        RESULTS,
        "            _refuse_what_has_not_run(result)\n",
        "",
        ("tests/unit/test_undo_results.py",),
    ),
    Mutant(
        "unstorable output learned by running again",
        CORE + "log.py",
        '        if data.reason == "unstorable":\n',
        "        if False:\n",
        MACHINE_TESTS,
    ),
    Mutant(
        "context shared by the calls of a task",
        RUNTIME + "calls/contexts.py",
        "        return base == copy_context()\n",
        "        return True\n",
        ("tests/unit/test_call_contexts.py",),
    ),
    Mutant(
        "live thread released at the close",
        RUNTIME + "host.py",
        "await self.setting.store.leave(self.owner, keep=kept)",
        "await self.setting.store.leave(self.owner)",
        ("tests/unit/test_threads.py",),
    ),
    Mutant(
        "altered rows accepted",
        "src/compensate/codec/records.py",
        "        if computed != stored:\n",
        "        if False:\n",
        STORE_TESTS,
    ),
    Mutant(
        "deaths not counted",
        CORE + "facts.py",
        "deaths = self.deaths.get(i, 0) + 1 if died and again else 0",
        "deaths = 1 if died and again else 0",
        DEATH_TESTS,
    ),
    Mutant(
        "deaths of undos not counted",
        CORE + "facts.py",
        "deaths = self.undo_deaths.get(i, 0) + 1 if died else 0",
        "deaths = 0",
        DEATH_TESTS,
    ),
    Mutant(
        "count of deaths not reset by an outcome",
        CORE + "log.py",
        "        self.deaths.pop(i, None)\n        if data.clean:\n",
        "        if data.clean:\n",
        DEATH_TESTS,
    ),
    Mutant(
        "count of deaths not reset by a success",
        CORE + "log.py",
        "            self.doubted.discard(i)\n            self.deaths.pop(i, None)\n",
        "            self.doubted.discard(i)\n",
        DEATH_TESTS,
    ),
    Mutant(
        "given up for deaths, and rolled back by running it again",
        CORE + "machine.py",
        "            if self._late or len(self._given_up) > len(self._convicted):\n",
        "            if self._late or self._given_up:\n",
        DEATH_TESTS,
    ),
    Mutant(
        "a drained process counted as dead (memory)",
        STORES + "memory.py",
        "saga.owner not in (None, claimant) and saga.owner not in self._drained",
        "saga.owner not in (None, claimant)",
        STORE_TESTS,
    ),
    Mutant(
        "a drained process counted as dead (SQLite)",
        STORES + "sqlite_tables.py",
        '            f"UPDATE sagas SET owner = NULL WHERE owner = ? AND {_DRAINED}", [(owner,) for owner in dead]\n',
        '            "UPDATE sagas SET owner = owner WHERE owner = ?", [(owner,) for owner in dead]\n',
        STORE_TESTS,
    ),
    Mutant(
        "a drained process counted as dead (file)",
        STORES + "file.py",
        "                    if other in owners.drained:\n                        self._release_all(other)\n",
        "",
        STORE_TESTS,
    ),
    Mutant(
        "a released saga counted as dead",
        RUNTIME + "host.py",
        "owed = self._prepare(execution, change, died=died)",
        "owed = self._prepare(execution, change, died=True)",
        DEATH_TESTS,
    ),
    Mutant(
        "suspects claimed with the others",
        RUNTIME + "adoption.py",
        "                        below=self.suspects.threshold,\n",
        "",
        DEATH_TESTS,
    ),
    Mutant(
        "suspects run all at once",
        RUNTIME + "suspects.py",
        "                if execution is not None:\n                    await self._watch(execution)\n",
        "",
        DEATH_TESTS,
    ),
    Mutant(
        "undo before its dependants landed",
        CORE + "flow.py",
        "                    if self.state[dep] in _EXECUTING:\n                        continue\n",
        "",
        MACHINE_TESTS,
    ),
    Mutant(
        "nothing waits for an element",
        CORE + "plan.py",
        "        self._edge(inner.end, end)\n",
        "",
        FAN_OUT_TESTS,
    ),
    Mutant(
        "the brackets of all sagas are one",
        CORE + "plan.py",
        "        other.partner = dict(self.partner)\n",
        "",
        FAN_OUT_TESTS,
    ),
    Mutant(
        "every element gets the first item",
        INSPECTION + "values.py",
        "return items[plan.elements[end].index(i)]",
        "return items[0]",
        FAN_OUT_TESTS,
    ),
    Mutant(
        "required parameter unchecked",
        INSPECTION + "bindings.py",
        "        elif parameter.default is parameter.empty:\n",
        "        elif False:\n",
        FIT_TESTS,
    ),
    Mutant(
        "parameter that is gone unchecked",
        INSPECTION + "bindings.py",
        "    unknown = sorted(given - set(action.params))\n",
        "    unknown: list[str] = []\n",
        FIT_TESTS,
    ),
    Mutant(
        "undo that is gone unchecked",
        INSPECTION + "bindings.py",
        "        if action.undo_fn is None:\n",
        "        if False:\n",
        FIT_TESTS,
    ),
    Mutant(
        "kind of undo unchecked",
        INSPECTION + "bindings.py",
        'elif spec.undo == "unknown" and action.undo_kind != "unknown":',
        'elif spec.undo == "unknown" and action.undo_kind == "none":',
        FIT_TESTS,
    ),
    Mutant(
        "later inputs unchecked",
        INSPECTION + "fit.py",
        "                reason = self._expr(item.expr, scope, (), codec.type, codec)\n",
        '                reason = ""\n',
        FIT_TESTS,
    ),
    Mutant(
        "types of values to come unchecked",
        INSPECTION + "fit.py",
        "        reason = clash(given, wanted)\n",
        '        reason = ""\n',
        FIT_TESTS,
    ),
    Mutant(
        "inputs of undos unchecked",
        INSPECTION + "fit.py",
        "        if action.undo_takes_ctx and self.fold.state[i] != s.PENDING:\n",
        "        if False:\n",
        FIT_TESTS,
    ),
    Mutant(
        "code of an undo needed behind a pivot",
        INSPECTION + "fit.py",
        "        undone = not fold.pivot_passed\n",
        "        undone = True\n",
        FIT_TESTS,
    ),
    Mutant(
        "parked sagas claimed untried",
        RUNTIME + "adoption.py",
        "if self._tried.get(record.id) == now or not await self._fits(record.id):",
        "if self._tried.get(record.id) == now:",
        FIT_TESTS,
    ),
    Mutant(
        "parked sagas tried once only",
        RUNTIME + "adoption.py",
        "                now = (record.last_seq, host.code)\n",
        "                now = (record.last_seq, 0)\n",
        FIT_TESTS,
    ),
    Mutant(
        "folder unsynced after a create or rename",
        STORES + "disk.py",
        "        self.sync_folder(path.parent)\n",
        "",
        FILE_DISKS,
    ),
    Mutant(
        "folder synced in name alone",
        STORES + "disk.py",
        "            os.fsync(descriptor)\n        finally:\n            os.close(descriptor)\n",
        "            pass\n        finally:\n            os.close(descriptor)\n",
        FILE_DISKS,
    ),
    Mutant(
        "content unsynced before its name",
        STORES + "disk.py",
        "                self.sync(descriptor)\n            finally:\n",
        "            finally:\n",
        FILE_DISKS,
    ),
    Mutant(
        "folder unsynced after a delete",
        STORES + "file_shelf.py",
        "        self._disk.sync_folder(self._folder)\n",
        "",
        FILE_DISKS,
    ),
    Mutant(
        "new folder unsynced",
        STORES + "file.py",
        "            self._disk.sync_folder(path.parent)\n",
        "",
        FILE_DISKS,
    ),
    Mutant(
        "signal not handed on",
        RUNTIME + "signals.py",
        "        if callable(former) and not _is_default(former):\n            former(number, frame)\n",
        "",
        ("tests/unit/test_signals.py",),
    ),
    Mutant(
        "loop ended by an exit",
        RUNTIME + "blocking.py",
        "                loop.call_soon(self.coordinator.stop)\n",
        "",
        ("tests/unit/test_blocking.py",),
    ),
)
