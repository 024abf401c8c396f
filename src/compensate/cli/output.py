"""What a command says: documents or text on stdout, hints and errors on stderr."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.console import Console, RenderableType
from rich.text import Text

from compensate.cli import codes
from compensate.cli.loading import CliError
from compensate.core.events import StuckNode
from compensate.errors import CompensateError
from compensate.inspection import documents
from compensate.inspection.snapshot import Snapshot
from compensate.render.words import exact, lines, plain
from compensate.stores.urls import redacted, scrubbed

DEFAULT_STORE: Final = "sqlite:///compensate.db"
WIDE: Final = 10_000
"""Columns of what is no terminal: lines are not broken there."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `Output` decide; the class that this is derived from would end the process, and a saga with it."""
        raise BrokenPipeError


class Output:
    """Where one command writes.

    Args:
        as_json: Documents for programs in place of text for people.
        debug: Tracebacks with errors.
        name: What the program is called.
    """

    def __init__(self, *, as_json: bool, debug: bool, name: str) -> None:
        self.as_json = as_json
        self.debug = debug
        self.name = name
        self._stdout = sys.stdout  # what users' code prints may be led elsewhere
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
        self.ascii = not encoding.startswith("utf")
        # A terminal's is looked up at each use: a live tree puts what users' code prints above itself.
        self.console = _Console(
            file=None if self.terminal else sys.stdout,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=not self.terminal,
            width=None if self.terminal else WIDE,
            # What is written into a file or pipe is for programs, whatever FORCE_COLOR says.
            no_color=None if self.terminal else True,
            force_terminal=self.terminal,
        )
        self._closed = False

    # -- stdout ------------------------------------------------------------

    def show(self, thing: RenderableType) -> None:
        """Print text for people."""
        # A terminal breaks long lines by itself; line feeds of our own would be copied with them.
        self._write(lambda: self.console.print(thing, soft_wrap=True))

    def line(self, text: str, style: str = "", *, data: str = "") -> None:
        """Print one line for people. Safe with any text: what could steer a terminal is taken out.

        Args:
            text: What to say.
            style: How.
            data: JSON that follows, kept so that it reads back as the same: what could steer a terminal is escaped.
        """
        indent = " " * (len(text) - len(text.lstrip(" ")))
        self.show(Text(indent + plain(text) + (f" {exact(data)}" if data else ""), style=style))

    def raw(self, text: str) -> None:
        """Write as it is."""
        self._write(lambda: self._stdout.write(text))

    def document(self, data: Any) -> None:
        """Write the one JSON document of a command."""
        self.raw(json_text(data, ascii_only=self.ascii, indent=2 if self.terminal else None) + "\n")

    def record(self, data: Any) -> None:
        """Write one JSON object of a stream, on a line of its own."""
        self.raw(json_text(data, ascii_only=self.ascii) + "\n")

    def _write(self, write: Any) -> None:
        if self._closed:
            return
        try:
            write()
            self._stdout.flush()
        except BrokenPipeError:
            # Nobody reads any more. A saga goes on all the same; whoever only prints looks at `closed`.
            self._closed = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stdout.fileno())  # else the interpreter's last flush would fail
            os.close(nowhere)

    @property
    def closed(self) -> bool:
        """Whether the reader of stdout has gone."""
        return self._closed

    # -- stderr ------------------------------------------------------------

    def hint(self, text: str) -> None:
        """Tell people more; programs that read JSON are not told."""
        if not self.as_json:
            sys.stderr.write(plain(text) + "\n")
            sys.stderr.flush()

    def error(self, error: BaseException) -> int:
        """Say what went wrong; returns the exit code."""
        if isinstance(error, click.ClickException):
            code, message = error.exit_code, error.format_message()
            command = (
                error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else self.name
            )
            message = f"{message.rstrip('.')}; see {command} --help"
        else:
            code = error.code if isinstance(error, CliError) else codes.of_error(error)
            message = str(error) if isinstance(error, CompensateError) else ""
            if not message:
                message = f"{type(error).__name__}: {error}".rstrip(": ")
                message += "" if self.debug else "; --debug shows the traceback"
        message = scrubbed(message)
        if self.debug:
            write_traceback(error)
        if self.as_json:
            kind = type(error).__name__
            said = {"error": {"code": code, "kind": kind, "message": message}}
            sys.stderr.write(json_text(said, ascii_only=True) + "\n")
        else:
            sys.stderr.write(f"{self.name}: error: {plain(message)}\n")
        sys.stderr.flush()
        return code


def json_text(data: Any, *, ascii_only: bool, indent: int | None = None) -> str:
    """`data` as JSON in which no character steers a terminal or breaks a line that is not broken by `indent`.

    Control characters (U+007F to U+009F too), line and paragraph separators, and those that are not seen (bidirectional
    marks, byte order marks) are escaped; it reads back as the same data.
    """
    text = json.dumps(data, ensure_ascii=ascii_only, indent=indent)
    return "\n".join(exact(line) for line in text.split("\n"))  # in a string a line feed is escaped already


def write_traceback(error: BaseException) -> None:
    """Write a traceback with its causes to stderr: nothing in its messages steers the terminal or is a password."""
    try:
        text = "".join(traceback.format_exception(error))
    except (
        Exception
    ) as broken:  # some exceptions refuse to say whether they are true, which Python asks of a chain
        text = f"{type(error).__name__}: its traceback cannot be written: {type(broken).__name__}\n"
    sys.stderr.write(lines(scrubbed(text)))


class LogHandler(logging.Handler):
    """What goes wrong around sagas while they run: one line each on stderr.

    What happens in a saga is left out: the command shows the saga's own events.
    """

    def __init__(self, out: Output) -> None:
        super().__init__(logging.WARNING)
        self.out = out

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        if getattr(record, "event", ""):
            return
        out, message = self.out, scrubbed(record.getMessage())
        level = record.levelname.lower()
        if out.as_json:
            said = {"log": {"level": level, "message": message}}
            sys.stderr.write(json_text(said, ascii_only=True) + "\n")
        else:
            sys.stderr.write(f"{out.name}: {level}: {plain(message)}\n")
        if out.debug and record.exc_info and record.exc_info[1] is not None:
            write_traceback(record.exc_info[1])
        sys.stderr.flush()


class Command:
    """A command to type, made of the words that this one was given."""

    def __init__(self, name: str, store: str) -> None:
        self.name = name
        self.store = store

    def __call__(
        self, verb: str, *arguments: str, flags: Sequence[str] = (), apps: Sequence[str] | None = None
    ) -> str:
        """The command.

        Args:
            verb: Which.
            arguments: Ids and names.
            flags: Its options.
            apps: What code it needs; empty if that is not known, `None` if none is needed.
        """
        parts = [*self.name.split(), verb, *flags]
        # A word that begins with a dash would be read as an option.
        dashed = any(argument.startswith("-") for argument in arguments)
        if not dashed:
            parts += arguments
        if apps is not None and not os.environ.get("COMPENSATE_APP"):
            for app in apps or ["MODULE"]:
                parts += ["--app", app]
        if self.store != (os.environ.get("COMPENSATE_STORE") or DEFAULT_STORE):
            parts += ["--store", redacted(self.store)]
        if dashed:
            parts += ["--", *arguments]
        return shlex.join(parts)


def choices(saga_id: str, node: StuckNode, command: Command, apps: list[str]) -> list[str]:
    """The commands to type for each legal choice at a stuck node."""
    typed: list[str] = []
    for choice in node.choices:
        verb, _, with_output = choice.partition(" ")
        flags = ["--output", "JSON"] if with_output else []
        typed.append(command(verb, saga_id, node.node, flags=flags, apps=apps))
    return typed


def saga_document(snapshot: Snapshot, command: Command, apps: list[str]) -> dict[str, Any]:
    """A whole saga as JSON data, with the commands to type for each choice that an operator has."""
    document = documents.of_saga(snapshot)
    for entry, node in zip(document["stuck"], snapshot.stuck(), strict=True):
        entry["commands"] = choices(snapshot.id, node, command, apps)
    return document
