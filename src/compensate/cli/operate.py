"""An operator's commands: `rollback`, `retry`, `skip`, `resolve`, `pause`, `unpause`, `delete`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from difflib import get_close_matches
from typing import Any

import click

from compensate.cli import codes
from compensate.cli.loading import CliError, load_code
from compensate.cli.options import Common, app, common, decision, running
from compensate.cli.output import saga_document
from compensate.cli.run import finish, interrupted, through
from compensate.cli.session import Interrupted, Session, check_store, reading
from compensate.core import states as s
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.runs import Run

Request = Callable[[Coordinator], Coroutine[Any, Any, Run[Any]]]

_wait = click.option(
    "--no-wait", is_flag=True, help="If another process runs the saga, do not wait for what it comes to."
)


def _operate(
    common: Common,
    saga_id: str,
    request: Request,
    *,
    apps: tuple[str, ...],
    deps: str | None = None,
    drain: float = 10.0,
    plain: bool = False,
    no_wait: bool = False,
    node: str | None = None,
    wanted: s.SagaStatus = s.COMPLETED,
) -> int:
    """Have a request carried out and see the saga through."""
    check_store(common.store)
    code = load_code(apps)
    session = Session(common.out, common.store, code, deps=deps, drain=drain, live=not plain)

    async def work() -> int:
        try:
            async with session.opened():
                before = await session.coordinator.get(saga_id)
                if node is not None and node not in before.nodes:
                    raise CliError(_no_node(saga_id, node, list(before.nodes)), codes.NOT_FOUND)
                await session.ask(saga_id, request(session.coordinator))
                here = session.coordinator.execution(saga_id) is not None
                session.watch.add(before)
                shown = await session.coordinator.get(saga_id)
                session.watch.add(shown)
                if not here and shown.status not in s.ENDS and no_wait:
                    return _said(common, session, saga_id, "carried out by the process that runs it")
                shown = await through(session, saga_id)
        except Interrupted as stopped:
            return await interrupted(common, session, stopped, code.given)
        return finish(common, shown, session.watch.sagas[saga_id], code.given, wanted=wanted)

    return asyncio.run(work())


def _no_node(saga_id: str, node: str, known: list[str]) -> str:
    known = [name for name in known if name]
    near = get_close_matches(node, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(known[:10])}"
    return f"saga {saga_id}: it has no node {node!r}; {hint}"


def _said(common: Common, session: Session, saga_id: str, what: str) -> int:
    """Say that a request was carried out, without waiting for more."""
    if common.out.as_json:
        common.out.document({"id": saga_id, "status": session.watch.sagas[saga_id].status, "done": what})
    else:
        common.out.line(f"saga {saga_id}: {what}")
    return codes.OK


@click.command(short_help="Undo everything that a saga did.")
@click.argument("saga_id", metavar="ID")
@click.option(
    "--grace", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long for running actions."
)
@decision
@_wait
@running
@common
def rollback(common: Common, saga_id: str, grace: float | None, reason: str, who: str, **more: Any) -> int:
    """Roll a running or completed saga back: undo everything that it did.

    Ends with 0 when it is rolled back. With --json: one document, as of 'show'.
    """

    def request(coordinator: Coordinator) -> Coroutine[Any, Any, Run[Any]]:
        return coordinator.rollback(saga_id, reason=reason, who=who, grace=grace)

    return _operate(common, saga_id, request, wanted=s.ROLLED_BACK, **more)


@click.command(short_help="Try a stuck node again.")
@click.argument("saga_id", metavar="ID")
@click.argument("node")
@decision
@_wait
@running
@common
def retry(common: Common, saga_id: str, node: str, reason: str, who: str, **more: Any) -> int:
    """Try a stuck node again, with all its attempts, and go on.

    Ends with the code of what the saga comes to. With --json: one document, as of 'show'.
    """

    def request(coordinator: Coordinator) -> Coroutine[Any, Any, Run[Any]]:
        return coordinator.retry(saga_id, node, reason=reason, who=who)

    return _operate(common, saga_id, request, node=node, **more)


@click.command(short_help="Leave a stuck node's effect as it is.")
@click.argument("saga_id", metavar="ID")
@click.argument("node")
@decision
@_wait
@running
@common
def skip(common: Common, saga_id: str, node: str, reason: str, who: str, **more: Any) -> int:
    """Leave the effect of a stuck node as it is, and go on undoing.

    Ends with the code of what the saga comes to. With --json: one document, as of 'show'.
    """

    def request(coordinator: Coordinator) -> Coroutine[Any, Any, Run[Any]]:
        return coordinator.skip(saga_id, node, reason=reason, who=who)

    return _operate(common, saga_id, request, node=node, **more)


@click.command(short_help="Say that a stuck node is mended by hand.")
@click.argument("saga_id", metavar="ID")
@click.argument("node")
@click.option(
    "--output", metavar="JSON", help="What the node's action returned; without: it was undone by hand."
)
@decision
@_wait
@running
@common
def resolve(
    common: Common, saga_id: str, node: str, output: str | None, reason: str, who: str, **more: Any
) -> int:
    """Say that a stuck node was undone by hand, or (--output) what its action returned, and go on.

    Ends with the code of what the saga comes to. With --json: one document, as of 'show'.
    """

    def request(coordinator: Coordinator) -> Coroutine[Any, Any, Run[Any]]:
        return coordinator.resolve(saga_id, node, output=output, reason=reason, who=who)

    return _operate(common, saga_id, request, node=node, **more)


@click.command(short_help="Start nothing more of a saga for now.")
@click.argument("saga_id", metavar="ID")
@decision
@app
@common
def pause(common: Common, saga_id: str, reason: str, who: str, apps: tuple[str, ...]) -> int:
    """Start nothing more of a saga until 'unpause'; what runs may land.

    With --json: one document, as of 'show'.
    """
    check_store(common.store)
    session = Session(common.out, common.store, load_code(apps), live=False)

    async def work() -> int:
        async with session.opened():
            await session.ask(saga_id, session.coordinator.pause(saga_id, reason=reason, who=who))
            shown = await session.coordinator.get(saga_id)
        if common.out.as_json:
            common.out.document(saga_document(shown, common.command, session.code.given))
        else:
            typed = common.command("unpause", saga_id, apps=session.code.given)
            common.out.line(f"saga {saga_id} is paused; go on with: {typed}")
        return codes.OK

    return asyncio.run(work())


@click.command(short_help="Go on with a paused saga.")
@click.argument("saga_id", metavar="ID")
@decision
@_wait
@running
@common
def unpause(common: Common, saga_id: str, reason: str, who: str, **more: Any) -> int:
    """Go on with a paused saga.

    Ends with the code of what the saga comes to. With --json: one document, as of 'show'.
    """

    def request(coordinator: Coordinator) -> Coroutine[Any, Any, Run[Any]]:
        return coordinator.resume(saga_id, reason=reason, who=who)

    return _operate(common, saga_id, request, **more)


@click.command(short_help="Forget a saga that has ended.")
@click.argument("saga_id", metavar="ID")
@common
def delete(common: Common, saga_id: str) -> int:
    """Forget a saga that has completed or was rolled back, its log included.

    With --json: one document, {"id": ..., "deleted": true}.
    """

    async def work() -> None:
        async with reading(common.store) as store:
            await store.delete(saga_id)

    asyncio.run(work())
    if common.out.as_json:
        common.out.document({"id": saga_id, "deleted": True})
    else:
        common.out.line(f"saga {saga_id} is deleted")
    return codes.OK
