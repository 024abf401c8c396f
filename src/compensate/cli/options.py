"""Options that many commands share."""

from __future__ import annotations

import functools
import getpass
from collections.abc import Callable
from typing import Any, TypeVar

import click

from compensate.cli.output import DEFAULT_STORE, Command, Output
from compensate.stores import redacted

F = TypeVar("F", bound=Callable[..., Any])


class Common:
    """What every command is given.

    Attributes:
        store: The store's url.
        shown_store: The same as it may be shown, without a password.
        out: Where to write.
        command: Makes commands to type.
    """

    def __init__(self, store: str, out: Output) -> None:
        self.store = store
        self.shown_store = redacted(store)
        self.out = out
        self.command = Command(out.name, store)


def common(fn: Callable[..., int]) -> Callable[..., int]:
    """Add `--store`, `--json`, `--debug`; the command gets them as its first argument, a `Common`."""

    @click.option(
        "--store",
        metavar="URL",
        envvar="COMPENSATE_STORE",
        default=DEFAULT_STORE,
        show_default=True,
        show_envvar=True,
        help="Where the sagas are kept.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @click.pass_context
    @functools.wraps(fn)
    def wrapped(
        context: click.Context, /, *args: Any, store: str, as_json: bool, debug: bool, **kwargs: Any
    ) -> int:
        out = context.find_object(Output)
        assert out is not None
        out.as_json, out.debug = as_json, debug
        return fn(Common(store, out), *args, **kwargs)

    return wrapped


def app(fn: F) -> F:
    """Add `--app`."""
    return click.option(
        "--app",
        "apps",
        multiple=True,
        metavar="MODULE[:SAGA]",
        help="Where the code of stored sagas is; repeatable. The working directory is searched too, as by "
        "python -m. By default $COMPENSATE_APP, separated by commas.",
    )(fn)


def running(fn: F) -> F:
    """Add the options of commands that run actions and undos."""
    for option in (
        click.option(
            "--plain",
            is_flag=True,
            help="A line for each event, as where there is no terminal; no live tree.",
        ),
        click.option(
            "--drain",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            default=10.0,
            show_default=True,
            help="At ctrl-C or SIGTERM, wait so long for running actions.",
        ),
        click.option(
            "--deps",
            metavar="MODULE:FACTORY",
            envvar="COMPENSATE_DEPS",
            show_envvar=True,
            help="Called without arguments for the deps of actions (ctx.deps). It may be async; a context manager "
            "that it returns is entered, and left at the end.",
        ),
    ):
        fn = option(fn)
    return app(fn)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""  # a container may have a user without a name


def decision(fn: F) -> F:
    """Add `--reason` and `--who`, which are recorded."""
    fn = click.option("--reason", default="", metavar="TEXT", help="Why; recorded in the log.")(fn)
    return click.option(
        "--who",
        default=_user,
        metavar="NAME",
        show_default="the user",
        help="Who decides; recorded in the log.",
    )(fn)
