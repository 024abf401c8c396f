"""Commands that run sagas: `run` and `resume`."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import click

from compensate.cli import codes
from compensate.cli.injecting import injecting, read_faults
from compensate.cli.inspect_commands import output_text
from compensate.cli.loading import CliError, Code, load_code, load_saga, looks_like_definition, read_params
from compensate.cli.options import Common, common, running
from compensate.cli.output import saga_document
from compensate.cli.session import (
    Interrupted,
    Session,
    check_store,
    code_of,
    needs_code,
    resume_hint,
    stuck_hints,
)
from compensate.core import states as s
from compensate.errors import CompensateError, StoreError
from compensate.inspection import documents
from compensate.inspection.snapshot import Snapshot
from compensate.inspection.timeline import Timeline
from compensate.render.words import STATE_WORDS
from compensate.runtime.inject import check_fit
from compensate.stores.base import SagaRecord


@click.command(short_help="Run a saga and wait for its end.")
@click.argument("spec", metavar="MODULE:SAGA")
@click.option(
    "--params",
    metavar="JSON|@FILE|-",
    default="{}",
    help="The params, a JSON object by name; from a file, or from standard input.  [default: {}]",
)
@click.option(
    "--id", "saga_id", metavar="ID", help="The saga's id; the same id again goes on with the same saga."
)
@injecting
@running
@common
def run(
    common: Common,
    spec: str,
    params: str,
    saga_id: str | None,
    faults: tuple[str, ...],
    apps: tuple[str, ...],
    deps: str | None,
    drain: float,
    plain: bool,
) -> int:
    """Run a saga and wait for its end.

    On a terminal the saga is drawn live, do and undo; elsewhere each event is a line. Ctrl-C and SIGTERM stop it
    resumably. With --json: one document at the end, as of 'show', with "interrupted" set if it was.
    """
    saga = load_saga(spec)
    code = load_code(apps)
    code.add_saga(saga)
    given = saga.read_params(read_params(params))  # before there is a store
    inject = read_faults(faults)
    check_fit(saga.plan, inject)
    if saga_id is not None:
        saga = saga.with_id(saga_id)
    words = [spec, *apps]
    session = Session(common.out, common.store, code, deps=deps, drain=drain, live=not plain)

    async def work() -> int:
        found: list[Snapshot] = []
        try:
            async with session.opened():
                started = await session.unless_stopped(
                    session.coordinator.start_json(saga, given, inject=inject)
                )
                shown = await session.coordinator.get(started.id)
                session.watch.add(shown, past=True)
                if shown.status in s.ENDS and not started.new:
                    common.out.hint(f"saga {started.id} had ended before; this is what it came to")
                elif inject and not started.new:
                    common.out.hint(
                        f"saga {started.id} was started before; of --inject it meets only what is still to come"
                    )
                found.append(await through(session, started.id))
        except Interrupted as stopped:
            return await interrupted(common, session, stopped, words)
        return finish(common, found[0], session.watch.sagas[found[0].id], words)

    return asyncio.run(work())


async def through(session: Session, saga_id: str) -> Snapshot:
    """See a saga through to its end and read it once more."""
    await session.unless_stopped(session.see_through(saga_id))
    return await session.coordinator.get(saga_id)


async def interrupted(common: Common, session: Session, stopped: Interrupted, apps: list[str]) -> int:
    """Say how the saga stands after a signal. It may have ended while it was waited for."""
    out = common.out
    for timeline in session.watch.sagas.values():
        if timeline.ended:
            out.hint(f"saga {timeline.id} ended while it was waited for: {STATE_WORDS[timeline.status]}")
            if out.as_json:
                out.document({"id": timeline.id, "status": timeline.status, "interrupted": False})
            return code_of(timeline)
        hint = resume_hint(timeline, common.command, apps)
        if out.as_json:
            kept = common.store != "memory://"
            typed = common.command("resume", timeline.id, apps=apps) if kept else None
            out.document({"id": timeline.id, "status": timeline.status, "interrupted": True, "resume": typed})
        out.hint(hint)
    if not session.watch.sagas:
        out.hint("stopped before any saga was touched")
    raise stopped


def finish(
    common: Common,
    shown: Snapshot,
    timeline: Timeline,
    apps: list[str],
    *,
    wanted: s.SagaStatus = s.COMPLETED,
) -> int:
    """Say what a saga came to; returns the exit code."""
    out = common.out
    if out.as_json:
        out.document({**saga_document(shown, common.command, apps), "interrupted": False})
        return code_of(timeline, wanted=wanted)
    if shown.status == s.COMPLETED and shown.fold.plan.dag.output is not None:
        out.line("output:", data=output_text(shown))
    for hint in stuck_hints(shown, common.command, apps):
        out.line(hint)
    return code_of(timeline, wanted=wanted)


@click.command(short_help="Go on with unfinished sagas.")
@click.argument("words", nargs=-1, metavar="[ID] [MODULE[:SAGA]]...")
@click.option("--all", "everything", is_flag=True, help="Every saga that has not ended and that nobody runs.")
@running
@common
def resume(
    common: Common,
    words: tuple[str, ...],
    everything: bool,
    apps: tuple[str, ...],
    deps: str | None,
    drain: float,
    plain: bool,
) -> int:
    """Go on with an unfinished saga, or with all of them (--all).

    The code that they need is named behind the id, or by --app. Sagas whose code is not given, that are paused, or
    that somebody else runs are left alone. With --json: for one saga one document, as of 'show'; with --all one JSON
    object a line for each saga, when it is done with.
    """
    if everything:
        saga_id, more = None, words
    elif not words or (len(words) == 1 and looks_like_definition(words[0])):
        raise click.UsageError("say which saga by its id, or --all")
    else:
        saga_id, more = words[0], words[1:]
    check_store(common.store)
    code = load_code([*more, *apps])
    session = Session(
        common.out, common.store, code, deps=deps, drain=drain, live=not plain, several=saga_id is None
    )
    if saga_id is None:
        return asyncio.run(_resume_all(common, session, code))
    return asyncio.run(_resume_one(common, session, code, saga_id))


async def _resume_one(common: Common, session: Session, code: Code, saga_id: str) -> int:
    try:
        async with session.opened():
            before = await session.coordinator.get(saga_id)
            why = _not_resumed(before, code, common)
            if why:
                raise CliError(why, codes.REFUSED)
            if before.status in s.ENDS and not before.record.parked:
                common.out.hint(
                    f"saga {saga_id} has ended; this is what it came to: {STATE_WORDS[before.status]}"
                )
            else:
                await session.unless_stopped(session.coordinator.adopt(saga_id))
                if session.coordinator.execution(saga_id) is None and before.record.owner is not None:
                    common.out.hint(f"saga {saga_id} is run by {before.record.owner}; following it")
            session.watch.add(before)
            session.watch.add(await session.coordinator.get(saga_id))
            shown = await through(session, saga_id)
    except Interrupted as stopped:
        return await interrupted(common, session, stopped, code.given)
    return finish(common, shown, session.watch.sagas[saga_id], code.given)


def _not_resumed(shown: Snapshot, code: Code, common: Common) -> str:
    if shown.status in s.ENDS and not shown.record.parked:
        return ""  # what it came to is shown
    if shown.record.paused:
        return (
            f"saga {shown.id} is paused; go on with: {common.command('unpause', shown.id, apps=code.given)}"
        )
    misfit = shown.misfit(code.registry)
    return needs_code(shown.id, misfit) if misfit else ""


async def _resume_all(common: Common, session: Session, code: Code) -> int:
    ends: list[int] = []
    unfinished: list[str] = []
    try:
        async with session.opened():
            coordinator = session.coordinator
            for record in await _unfinished(session):
                try:
                    shown = await coordinator.get(record.id)
                    left = await _take_up(common, session, shown)
                except StoreError as error:
                    left = Left(str(error), codes.STORE)
                    common.out.error(error)
                if left is None:
                    unfinished.append(record.id)
                else:
                    ends.append(_tell_left(common, record, left))
            if not unfinished and not ends:
                common.out.hint(f"nothing to resume in {common.shown_store}")
            ends += await session.unless_stopped(_all_of(session, unfinished))
    except Interrupted:
        open_ = [timeline for timeline in session.watch.sagas.values() if not timeline.ended]
        common.out.hint(
            f"{len(open_)} sagas can be resumed: {common.command('resume', flags=['--all'], apps=code.given)}"
        )
        raise
    return codes.worst(ends)


async def _all_of(session: Session, saga_ids: list[str]) -> list[int]:
    return await asyncio.gather(*(_one_of_all(session, saga_id) for saga_id in saga_ids))


async def _unfinished(session: Session) -> list[SagaRecord]:
    """Sagas that have not ended, and parked ones; oldest first."""
    found: list[SagaRecord] = []
    status: s.SagaStatus
    for status in (s.RUNNING, s.ROLLING_BACK, s.STUCK):
        cursor: str | None = None
        while True:
            page = await session.coordinator.list(status=status, cursor=cursor, limit=1_000)
            found += [record for record in page.records if status != s.STUCK or record.parked]
            cursor = page.cursor
            if cursor is None:
                break
    return sorted(found, key=lambda record: record.created_at)


async def _one_of_all(session: Session, saga_id: str) -> int:
    out = session.out
    try:
        timeline = await session.see_through(saga_id)
        shown = await session.coordinator.get(saga_id)
    except CompensateError as error:
        return out.error(error)
    if out.as_json:
        out.record({**saga_document(shown, session.command, session.code.given), "resumed": True})
    else:
        for hint in stuck_hints(shown, session.command, session.code.given):
            out.line(f"{saga_id}  {hint}")
    return codes.of_status(timeline.status)


class Left(NamedTuple):
    """Why a saga was left alone, and what that means for the exit code."""

    why: str
    code: int


async def _take_up(common: Common, session: Session, shown: Snapshot) -> Left | None:
    """Go on with one of many sagas; `None` if it runs here now."""
    coordinator = session.coordinator
    why = _not_resumed(shown, session.code, common)
    if why:
        # To be paused is no fault; to lack the code is.
        return Left(why, codes.OK if shown.record.paused else codes.REFUSED)
    session.watch.add(shown)
    await session.unless_stopped(coordinator.adopt(shown.id))
    if coordinator.execution(shown.id) is not None:
        return None
    fresh = await coordinator.get(shown.id)
    session.watch.add(fresh)
    if fresh.status in s.ENDS:
        return Left("", codes.of_status(fresh.status))  # it had nothing left to do but to end
    return Left(f"saga {shown.id} is run by {fresh.record.owner}; it is left to that one", codes.OK)


def _tell_left(common: Common, record: SagaRecord, left: Left) -> int:
    """Say what became of a saga that does not run here."""
    if common.out.as_json:
        common.out.record({**documents.of_record(record), "resumed": not left.why, "because": left.why})
    elif left.why and left.code != codes.STORE:
        common.out.hint(f"left alone: {left.why}")
    return left.code
