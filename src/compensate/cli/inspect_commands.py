"""Commands that only look: `ls`, `show`, `events`, `graph`. They never make a store, and change nothing in one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import click
from rich.text import Text

from compensate.cli import codes
from compensate.cli.loading import CliError, ModuleMissing, load_saga, looks_like_definition
from compensate.cli.options import Common, common
from compensate.cli.output import saga_document
from compensate.cli.session import reading, stuck_hints
from compensate.cli.tree import status_text, tree
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.names import check_name
from compensate.errors import SagaNotFound, Unavailable
from compensate.inspection import documents
from compensate.inspection.snapshot import Snapshot
from compensate.inspection.timeline import Timeline
from compensate.render import Source, dot, mermaid, snapshot, svg, text
from compensate.render.lines import clock_time, event_line
from compensate.render.words import STATE_WORDS, columns, cut, plain
from compensate.stores import Store, store_exists
from compensate.stores.base import SagaRecord

_END_OF: Final[dict[str, s.SagaStatus]] = {
    e.SAGA_COMPLETED: s.COMPLETED,
    e.SAGA_ROLLED_BACK: s.ROLLED_BACK,
    e.SAGA_STUCK: s.STUCK,
}
_DRAW: Final[dict[str, Callable[[Source], str]]] = {"dot": dot, "mermaid": mermaid, "svg": svg}

_ID_LEAST: Final = 20
"""Columns that an id has at least in a list, if it is that long."""

POLL: Final = 0.2
"""Seconds between two looks for new events."""


@click.command("ls", short_help="List sagas.")
@click.option("--status", type=click.Choice(get_args(s.SagaStatus)), help="Only sagas that stand so.")
@click.option("--name", metavar="SAGA", help="Only sagas of this definition.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on behind an earlier list.")
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@common
def ls(
    common: Common,
    status: s.SagaStatus | None,
    name: str | None,
    limit: int,
    cursor: str | None,
    everything: bool,
) -> int:
    """List sagas, newest first. On a terminal, as much of them as fits.

    With --json: one document, {"sagas": [...], "cursor": ...}; the cursor is null when there are no more.
    """
    if name is not None:
        check_name(name, "saga name")

    async def look() -> tuple[list[SagaRecord], str | None]:
        records: list[SagaRecord] = []
        at = cursor
        async with reading(common.store) as store:
            while True:
                page = await store.page(
                    status=status, name=name, cursor=at, limit=1_000 if everything else limit
                )
                records += page.records
                at = page.cursor
                if at is None or not everything:
                    return records, at

    records, after = asyncio.run(look())
    if common.out.as_json:
        common.out.document({"sagas": [documents.of_record(record) for record in records], "cursor": after})
        return codes.OK
    _table(common, records)
    if not records:
        common.out.hint(f"no saga in {common.shown_store}" + (" is like that" if status or name else ""))
    if after is not None:
        common.out.hint(f"there are more: add --all, or --cursor {after}")
    return codes.OK


def _table(common: Common, records: Sequence[SagaRecord]) -> None:
    rows: list[tuple[Text, ...]] = [
        tuple(Text(head, "bold") for head in ("ID", "SAGA", "STATUS", "CREATED", "UPDATED", "OWNER"))
    ]
    for record in records:
        status = status_text(
            record.status, paused=record.paused, parked=record.parked, ascii_only=common.out.ascii
        )
        times = (_short(record.created_at), _short(record.updated_at))
        rows.append(
            (
                Text(record.id),
                Text(record.name),
                status,
                *(Text(time, "bright_black") for time in times),
                Text(record.owner or "-", "bright_black"),
            )
        )
    if len(rows) == 1:
        return
    widths = [max(columns(row[k].plain) for row in rows) for k in range(len(rows[0]))]
    shown = _fitting(widths, common.out.console.width)
    for row in rows:
        line = Text()
        for k in shown:
            cell = row[k].copy()
            if columns(cell.plain) > widths[k]:
                cell = Text(cut(cell.plain, widths[k], "..." if common.out.ascii else "…"))
            line.append_text(cell)
            line.append(" " * (widths[k] - columns(cell.plain) + 2))
        line.rstrip()
        common.out.show(line)


def _fitting(widths: list[int], room: int) -> list[int]:
    """Which columns of the list fit into `room`; what is left of it is the width of the ids."""
    shown = list(range(len(widths)))
    for least in (3, 5, 4):  # created, owner, updated
        if sum(widths[k] + 2 for k in shown[1:]) + min(widths[0], _ID_LEAST) <= room:
            break
        shown.remove(least)
    widths[0] = min(widths[0], max(_ID_LEAST, room - sum(widths[k] + 2 for k in shown[1:])))
    return shown


def _short(at: float) -> str:
    return clock_time(at).partition(".")[0] + "Z"


@click.command(short_help="Show a saga, and what can be done about it.")
@click.argument("saga_id", metavar="ID")
@click.option("--traceback", "tracebacks", is_flag=True, help="Show the recorded tracebacks too.")
@common
def show(common: Common, saga_id: str, tracebacks: bool) -> int:
    """Show a saga: its nodes, attempts, errors, who runs it, and what an operator can do.

    With --json: one document, with what every node got, gave and raised.
    """

    async def look() -> Snapshot:
        async with reading(common.store) as store:
            return Snapshot(await store.load(saga_id))

    shown = asyncio.run(look())
    out = common.out
    if out.as_json:
        out.document(saga_document(shown, common.command, []))
        return codes.OK
    tell(common, shown)
    for label, failed in _failures(shown):
        out.line(f"{label}: {failed.type.removeprefix('builtins.')}: {failed.message}", "red")
        if tracebacks and failed.traceback:
            out.raw(
                "".join(
                    f"    {plain(part)}\n" if part.strip() else "" for part in _indented(failed.traceback)
                )
            )
    for hint in stuck_hints(shown, common.command, []):
        out.line(hint, "bold" if hint and not hint.startswith(" ") else "")
    _tell_owner(common, shown)
    return codes.OK


def _indented(traceback: str) -> list[str]:
    return [part.replace(" ", "\u00a0") for part in traceback.splitlines()]


def tell(common: Common, shown: Snapshot) -> None:
    """The tree of a saga, with its params and output."""
    import time

    out = common.out
    timeline = Timeline(shown.fold, shown.events)
    width = out.console.width
    out.show(tree(timeline, time.time(), width=width, ascii_only=out.ascii))
    out.line("params:", data=shown.fold.params.decode("utf-8", "replace"))
    if shown.status == s.COMPLETED and shown.fold.plan.dag.output is not None:
        out.line("output:", data=output_text(shown))


def output_text(shown: Snapshot) -> str:
    """The saga's output as JSON text."""
    import json

    return json.dumps(shown.output(), ensure_ascii=False)


def _failures(shown: Snapshot) -> list[tuple[str, Any]]:
    fold, names = shown.fold, shown.fold.plan.names
    found = [(names[i], failed.error) for i, failed in sorted(fold.errors.items())]
    found += [(f"undo of {names[i]}", failed.error) for i, failed in sorted(fold.undo_errors.items())]
    return [(label, error) for label, error in found if error is not None]


def _tell_owner(common: Common, shown: Snapshot) -> None:
    record, out = shown.record, common.out
    if record.status in s.ENDS:
        out.line(f"{STATE_WORDS[record.status]} since {_short(record.updated_at)}", "bright_black")
        return
    if record.owner is not None:
        out.line(
            f"owned by {record.owner}, epoch {record.epoch}; should that have died, the saga can be resumed",
            "bright_black",
        )
    else:
        out.line(f"nobody runs it; epoch {record.epoch}", "bright_black")
    verb = "unpause" if record.paused else "resume"
    out.line(f"to go on with it: {common.command(verb, record.id, apps=[])}", "bright_black")


@click.command(short_help="Print or follow a saga's log.")
@click.argument("saga_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Wait for more until the saga ends.")
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only events behind this one."
)
@common
def events(common: Common, saga_id: str, follow: bool, after: int) -> int:
    """Print a saga's log, an event a line.

    With --json: one JSON object a line; "data" is as the log holds it.
    """

    async def look() -> None:
        async with reading(common.store) as store:
            await _events(common, store, saga_id, after, follow=follow)

    try:
        asyncio.run(look())
    except KeyboardInterrupt:
        return codes.INTERRUPTED
    return codes.OK


async def _events(common: Common, store: Store, saga_id: str, after: int, *, follow: bool) -> None:
    out = common.out
    shown = Snapshot(await store.load(saga_id))
    began: dict[tuple[str, bool], float] = {}
    fresh = shown.events
    status: s.SagaStatus | None = shown.status
    while True:
        for event in fresh:
            undo = event.type.startswith("und")
            started = began.pop((event.node, undo), None)
            if event.type in ("started", "undo_started"):
                began[event.node, undo], started = event.at, None
            if event.seq <= after:
                continue
            if out.as_json:
                out.record(documents.of_event(event))
            else:
                out.line(event_line(event, took=None if started is None else event.at - started))
        if not follow or out.closed or status in s.ENDS:
            return
        seq = fresh[-1].seq if fresh else shown.record.last_seq
        while True:
            await asyncio.sleep(POLL)
            try:
                fresh = await store.events(saga_id, seq)
            except Unavailable:
                continue  # busy just now
            if fresh:
                break
        status = _END_OF.get(fresh[-1].type)


@click.command(short_help="Draw a definition or a stored saga.")
@click.argument("source", metavar="MODULE:SAGA|ID")
@click.option(
    "--format",
    "-f",
    type=click.Choice(["text", "dot", "mermaid", "svg"]),
    default="text",
    show_default=True,
    help="text: for a terminal; dot: for Graphviz; mermaid: for Markdown; svg: a picture.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write into this file, not to stdout.",
)
@common
def graph(common: Common, source: str, format: str, output: Path | None) -> int:
    """Draw a saga's graph: of a definition, or of a stored saga with the states of its nodes.

    With --json: one document, {"format": ..., "graph": ...}.
    """
    shown = asyncio.run(_source(common, source))
    out = common.out
    if format == "text":
        width = out.console.width if out.terminal else 100
        drawn = text(shown, ascii=out.ascii and output is None, width=width)
    else:
        drawn = _DRAW[format](shown)
    if output is not None:
        try:
            output.write_text(drawn, encoding="utf-8")
        except OSError as error:
            raise CliError(f"--output {output}: {error.strerror}") from error
    if out.as_json:
        out.document(
            {"format": format, "graph": drawn} if output is None else {"format": format, "file": str(output)}
        )
    elif output is None:
        out.raw(drawn if drawn.endswith("\n") else drawn + "\n")
    else:
        out.hint(f"wrote {os.fspath(output)}")
    return codes.OK


async def _source(common: Common, source: str) -> Source:
    """A definition, or else a stored saga: an id may hold a colon too."""
    missing: ModuleMissing | None = None
    if looks_like_definition(source):
        try:
            return load_saga(source).dag
        except ModuleMissing as error:
            missing = error
            if not store_exists(common.store):
                raise
    async with reading(common.store) as store:
        try:
            shown = Snapshot(await store.load(source))
        except SagaNotFound:
            if missing is not None:
                raise missing from None
            raise
    return snapshot(shown.fold, shown.events)
