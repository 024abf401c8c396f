"""`check`: whether definitions are sound, and whether today's code can go on with the sagas that are stored."""

from __future__ import annotations

import asyncio

import click
import msgspec

from compensate.cli import codes
from compensate.cli.loading import CliError, Code, load_code, load_module, load_saga, sagas_of
from compensate.cli.options import Common, app, common
from compensate.cli.session import reading
from compensate.codec import records as r
from compensate.core import states as s
from compensate.core.plan import Plan
from compensate.errors import CompensateError
from compensate.inspection.bindings import Bindings
from compensate.inspection.fit import Misfit, misfit
from compensate.inspection.snapshot import Snapshot
from compensate.render.words import STATE_WORDS
from compensate.stores import store_exists
from compensate.stores.base import SagaRecord, Store, StoredSaga


class Group(msgspec.Struct):
    """Stored sagas that stand alike.

    Attributes:
        name: Of their definition.
        fingerprint: Of their dag.
        dag: `today`: as in the code; `older`: another than in the code; `unknown`: the code has no saga of that name.
        misfit: Why the code could not go on with them, in the words of a coordinator that parks them; `""` if it could.
        node: Path of the node that the code does not fit; `""` if it fits, or if the log cannot be read.
        reason: `misfit` without the node.
        advice: What to do about it.
        ids: Which.
    """

    name: str
    fingerprint: str
    dag: str
    misfit: str
    node: str
    reason: str
    advice: str
    ids: list[str]


@click.command(short_help="Hold code against stored sagas.")
@click.argument("spec", metavar="MODULE[:SAGA]")
@app
@common
def check(common: Common, spec: str, apps: tuple[str, ...]) -> int:
    """Check saga definitions, and that this code fits the stored sagas that have not ended.

    Importing the module checks its sagas. If the store is there, each of its unfinished sagas is held against the
    code: whether it runs today's dag or an older one, and whether all of it that may still run can be run: each action
    is known and given what it needs, the undos are of the stored kind, and stored values decode where they are read. A
    coordinator with this code would park the others, for the reasons that are given here. The exit code is 8 then.
    Where several modules share a store, name the others with --app.
    With --json: one document, {"ok": ..., "sagas": [...], "stored": [...]}; each entry of "stored" has the ids of sagas
    that stand alike, and "node", "reason" and "advice" if the code does not fit them.
    """
    code = load_code(apps)
    code.add(spec)
    module, colon, _ = spec.partition(":")
    found = [load_saga(spec)] if colon else sagas_of(load_module(module))
    if not found:
        raise CliError(f"module {module!r} has no saga; decorate a function with @saga")
    groups: list[Group] | None = None
    if store_exists(common.store) or _asked_for_store():
        groups = asyncio.run(_stored(common, code))
    ok = all(not group.misfit for group in groups or ())
    if common.out.as_json:
        sagas = [
            {
                "name": saga.name,
                "where": saga.where,
                "fingerprint": saga.fingerprint,
                "nodes": len(saga.plan.index),
                "params": saga.takes,
            }
            for saga in found
        ]
        stored = None if groups is None else [msgspec.to_builtins(group) for group in groups]
        common.out.document({"ok": ok, "sagas": sagas, "store": common.shown_store, "stored": stored})
    else:
        for saga in found:
            common.out.line(
                f"{saga.where}: sound; fingerprint {saga.fingerprint}, params {saga.takes}",
                "green",
            )
        _tell(common, groups)
    return codes.OK if ok else codes.CHECK_FAILED


def _asked_for_store() -> bool:
    context = click.get_current_context()
    source = context.get_parameter_source("store")
    return source is not None and source.name != "DEFAULT"


async def _stored(common: Common, code: Code) -> list[Group]:
    today = {saga.name: saga.fingerprint for saga in code.sagas}
    groups: dict[tuple[str, str, str], Group] = {}
    bindings: dict[str, Bindings] = {}
    async with reading(common.store) as store:
        for record in await _unfinished(store):
            try:
                wrong = _held_against(await store.load(record.id), bindings, code)
                said = "" if wrong is None else str(wrong)
            except CompensateError as error:
                wrong, said = None, str(error)
            dag = "unknown"
            if record.name in today:
                dag = "today" if today[record.name] == record.fingerprint else "older"
            key = (record.name, record.fingerprint, said)
            group = groups.get(key)
            if group is None:
                node, reason, advice = (
                    ("", said, "") if wrong is None else (wrong.node, wrong.reason, wrong.advice)
                )
                group = groups[key] = Group(
                    record.name, record.fingerprint, dag, said, node, reason, advice, []
                )
            group.ids.append(record.id)
    return list(groups.values())


def _held_against(stored: StoredSaga, known: dict[str, Bindings], code: Code) -> Misfit | None:
    """Why the code does not fit a stored saga; `known` keeps what all sagas of one dag share."""
    bindings = known.get(stored.record.fingerprint)
    if bindings is None:
        plan = Plan(r.decode_dag(stored.dag))
        bindings = known[stored.record.fingerprint] = Bindings(plan, code.registry.get)
    return misfit(Snapshot(stored, bindings.plan).fold, bindings)


async def _unfinished(store: Store) -> list[SagaRecord]:
    found: list[SagaRecord] = []
    status: s.SagaStatus
    for status in (s.RUNNING, s.ROLLING_BACK, s.STUCK):
        cursor: str | None = None
        while True:
            page = await store.page(status=status, cursor=cursor, limit=1_000)
            found += page.records
            cursor = page.cursor
            if cursor is None:
                break
    return found


_DAGS = {
    "today": "run today's dag",
    "older": "run an older dag than the code's, as they were stored",
    "unknown": "are of a saga that this code does not define",
}


def _tell(common: Common, groups: list[Group] | None) -> None:
    out = common.out
    if groups is None:
        out.line(f"no store at {common.shown_store}: nothing stored was checked", "bright_black")
        return
    if not groups:
        words = ", ".join(STATE_WORDS[status] for status in (s.RUNNING, s.ROLLING_BACK, s.STUCK))
        out.line(f"{common.shown_store}: no saga is {words.replace(', stuck', ' or stuck')}", "bright_black")
    for group in groups:
        ids = ", ".join(group.ids[:5]) + (f" and {len(group.ids) - 5} more" if len(group.ids) > 5 else "")
        out.line(f"{group.name}, {len(group.ids)} stored ({ids}): they {_DAGS[group.dag]}")
        if group.misfit:
            out.line(f"  this code cannot go on with them: {group.misfit}", "red")
            if group.advice:
                out.line(f"  what to do: {group.advice}")
        else:
            out.line("  this code can go on with them: all that may still run fits it", "green")
