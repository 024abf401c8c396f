"""Where sagas are kept: the protocol (`base`), memory, files, SQLite."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Protocol, runtime_checkable

from compensate.errors import NotFound, StoreUrlInvalid
from compensate.stores.base import Store
from compensate.stores.urls import redacted

FORMS: Final = (
    "memory://",
    "sqlite:///relative.db",
    "sqlite:////absolute/path.db",
    "file:///relative/folder",
    "file:////absolute/folder",
)
"""The forms of store urls."""

_OPTION: Final = re.compile(r"\?\w+=[^/]*$")


def open_store(url: str) -> Store:
    """The store that `url` names. It is not opened yet: nothing is read or written before `await store.open()`.

    After `sqlite:///` and `file:///` stands a path: `sqlite:///a.db` is `a.db` in the working directory,
    `sqlite:////srv/a.db` is `/srv/a.db`. Nothing in it is quoted or unquoted, and there are no options.

    Raises:
        StoreUrlInvalid: It names no store, or one that this version does not have; says what would.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StoreUrlInvalid(f"the store url is of type {type(url).__name__}; give a str, like {FORMS[1]!r}")
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise _invalid(url, "it has no '://'")
    # A module is imported only when a url asks for it: nobody pays for a store that is not used.
    if scheme == "memory":
        if rest:
            raise _invalid(url, "nothing can follow 'memory://'")
        from compensate.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        path = _path(url, rest)
        if path == ":memory:":
            raise _invalid(url, "for a store in memory give 'memory://'")
        from compensate.stores.sqlite import SqliteStore

        return SqliteStore(path)
    if scheme == "file":
        from compensate.stores.file import FileStore

        return FileStore(_path(url, rest))
    if scheme in ("postgresql", "postgres"):
        raise _invalid(url, "this version has no store on PostgreSQL")
    raise _invalid(url, f"there is no store {redacted(scheme)!r}")


def store_exists(url: str) -> bool:
    """Whether opening the store would find one; otherwise it would make one. Nothing is opened or made.

    Raises:
        StoreUrlInvalid: As `open_store`.
    """
    open_store(url)
    scheme, _, rest = url.partition("://")
    if scheme in ("sqlite", "file"):
        from pathlib import Path  # not at every import of the package

        try:
            return Path(rest[1:]).exists()
        except PermissionError:
            return True  # opening it says what is wrong
    return scheme != "memory"


@runtime_checkable
class _Looks(Protocol):
    """A store that can be opened without permission to write it."""

    async def look(self) -> None: ...


@asynccontextmanager
async def reading(url: str) -> AsyncGenerator[Store]:
    """A store that is only looked into, with no coordinator around it: nothing in it is gone on with.

    A file or folder that this process may not write is read as it is: nothing is made or tidied up beside it, and what
    would write raises.

    Raises:
        NotFound: Nothing is there. It is not made.
        StoreUrlInvalid: As `open_store`.
        StoreError: As `Store.open`.
    """
    if not store_exists(url):
        raise NotFound(f"no such store: {redacted(url)}; name one that is there")
    from compensate.stores.disk import ReadOnly

    store = open_store(url)
    try:
        await store.open()
    except ReadOnly:
        if not isinstance(store, _Looks):
            raise
        await store.look()
    try:
        yield store
    finally:
        await store.close()


def _path(url: str, rest: str) -> str:
    if not rest.startswith("/"):
        right = f"{url.partition('://')[0]}:///{rest or 'path'}"
        raise _invalid(url, f"a path takes three slashes: {redacted(right)}")
    path = rest[1:]
    if not path:
        raise _invalid(url, "the path is missing")
    if "\0" in path:
        raise _invalid(url, "a path holds no NUL")
    if _OPTION.search(path):
        # Elsewhere this is how options are given; taken as a name it would make a file that nobody meant.
        raise _invalid(
            url, "it ends in an option, and stores take none; leave out the '?' and what follows it"
        )
    return path


def _invalid(url: str, why: str) -> StoreUrlInvalid:
    return StoreUrlInvalid(f"store url {redacted(url)!r}: {why}; the forms are: {', '.join(FORMS)}")


__all__ = ["FORMS", "Store", "open_store", "reading", "redacted", "store_exists"]
