"""`check`: whether definitions are sound, and whether today's code can go on with the sagas that are stored."""

from __future__ import annotations

import asyncio

import click
import msgspec

from compensate.cli import codes
from compensate.cli.loading import CliError, Code, load_code, load_module, load_saga, sagas_of
from compensate.cli.options import Common, app, common
from compensate.cli.session import reading
from compensate.core import states as s
from compensate.errors import StoreError
from compensate.render.words import STATE_WORDS
from compensate.runtime.runs import Snapshot
from compensate.stores import store_exists
from compensate.stores.base import SagaRecord, Store


class Group(msgspec.Struct):
    """Stored sagas that stand alike.

    Attributes:
        name: Of their definition.
        fingerprint: Of their dag.
        dag: `today`: as in the code; `older`: another than in the code; `unknown`: the code has no saga of that name.
        misfit: Why the code could not go on with them; `""` if it could.
        ids: Which.
    """

    name: str
    fingerprint: str
    dag: str
    misfit: str
    ids: list[str]


@click.command(short_help="Hold code against stored sagas.")
@click.argument("spec", metavar="MODULE[:SAGA]")
@app
@common
def check(common: Common, spec: str, apps: tuple[str, ...]) -> int:
    """Check saga definitions, and that stored sagas which have not ended could be gone on with by this code.

    Importing the module checks its sagas. If the store is there, each of its unfinished sagas is held against the
    code: whether it runs today's dag or an older one, and whether its actions are known and its data still decodes.
    Where several modules share a store, name the others with --app.
    With --json: one document, {"ok": ..., "sagas": [...], "stored": [...]}.
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
        common.out.document({"ok": ok, "sagas": sagas, "store": common.store, "stored": stored})
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
    async with reading(common.store) as store:
        for record in await _unfinished(store):
            try:
                misfit = Snapshot(await store.load(record.id)).misfit(code.registry)
            except StoreError as error:
                misfit = str(error)
            dag = "unknown"
            if record.name in today:
                dag = "today" if today[record.name] == record.fingerprint else "older"
            key = (record.name, record.fingerprint, misfit)
            group = groups.setdefault(key, Group(record.name, record.fingerprint, dag, misfit, []))
            group.ids.append(record.id)
    return list(groups.values())


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
        out.line(f"no store at {common.store}: nothing stored was checked", "bright_black")
        return
    if not groups:
        words = ", ".join(STATE_WORDS[status] for status in (s.RUNNING, s.ROLLING_BACK, s.STUCK))
        out.line(f"{common.store}: no saga is {words.replace(', stuck', ' or stuck')}", "bright_black")
    for group in groups:
        ids = ", ".join(group.ids[:5]) + (f" and {len(group.ids) - 5} more" if len(group.ids) > 5 else "")
        out.line(f"{group.name}, {len(group.ids)} stored ({ids}): they {_DAGS[group.dag]}")
        if group.misfit:
            out.line(f"  this code cannot go on with them: {group.misfit}", "red")
        else:
            out.line("  this code can go on with them: every action is known, all data decodes", "green")
