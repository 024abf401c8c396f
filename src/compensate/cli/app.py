"""The command line as a whole: its commands, its help, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Generator, Sequence

import click

from compensate import __version__
from compensate.cli import codes
from compensate.cli.check import check
from compensate.cli.inspect_commands import events, graph, ls, show
from compensate.cli.operate import delete, pause, resolve, retry, rollback, skip, unpause
from compensate.cli.output import LogHandler, Output
from compensate.cli.run import resume
from compensate.cli.run import run as run_command
from compensate.cli.session import Interrupted, leave

_HELP = f"""Run durable sagas, look at them, and decide about those that are stuck.

Sagas are named as MODULE:NAME, like shop.orders:fulfil; the working directory is searched, as by python -m.
The store is --store, or $COMPENSATE_STORE, or sqlite:///compensate.db in the working directory. Only 'run' makes
a store that is not there.

With --json a command writes one JSON document to stdout; 'events' and 'resume --all' write one JSON object a
line. Errors are JSON objects on stderr then.

\b
Exit codes:
{codes.table()}
"""

_COMMANDS = (
    run_command,
    resume,
    ls,
    show,
    events,
    graph,
    check,
    rollback,
    retry,
    skip,
    resolve,
    pause,
    unpause,
    delete,
)


class _InOrder(click.Group):
    """Lists its commands as they came, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(
    cls=_InOrder,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="compensate")
def cli() -> None:
    """Replaced by `_HELP`."""


for _command in _COMMANDS:
    cli.add_command(_command)


@contextlib.contextmanager
def _reports(out: Output) -> Generator[None, None, None]:
    """Send what the coordinator reports to stderr."""
    logger = logging.getLogger("compensate")
    handler, propagate = LogHandler(out), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def run(arguments: Sequence[str], name: str) -> int:
    """Run the command line; returns the exit code. A process that was interrupted ends here."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            # A name that the terminal cannot show must not end a saga's run.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    # Before the command has read them: its options may be what is wrong.
    out = Output(as_json="--json" in arguments, debug="--debug" in arguments, name=name)
    try:
        # What users' code prints must not get into a document.
        with _reports(out), contextlib.redirect_stdout(sys.stderr if out.as_json else sys.stdout):
            code = cli.main(list(arguments), prog_name=name, standalone_mode=False, obj=out)
        return int(code or 0)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return codes.BAD_INPUT
    except Interrupted as stopped:
        leave(stopped.code)
    except (KeyboardInterrupt, click.Abort):
        out.hint("interrupted")
        return codes.INTERRUPTED
    except Exception as error:
        return out.error(error)
