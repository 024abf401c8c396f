"""Ids and names: what is allowed, and the keys made of them.

A `/` joins saga id, node path and direction into an idempotency key, and `[n]`
marks an element of a fan-out; so neither may occur inside a single name.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final, Literal

from compensate.errors import NameInvalid

LONGEST: Final = 200
"""Most characters in an id or name."""

_DIGEST: Final = 16
"""Hexadecimal digits of the digest in a made name."""

Direction = Literal["do", "undo"]


def check_saga_id(text: object) -> str:
    """Return `text` if it can be a saga id.

    Raises:
        NameInvalid: Not a `str`, empty, longer than `LONGEST`, `.` or `..`, or it
            holds `/`, white space at an end, a control or unpaired surrogate character.
    """
    return _check(text, "saga id", "/")


def check_name(text: object, what: str) -> str:
    """Return `text` if it can name a node, action or saga definition (`what` says which).

    Raises:
        NameInvalid: As for `check_saga_id`; besides, `[` and `]` are kept for fan-outs.
    """
    return _check(text, what, "/[]")


def _check(text: object, what: str, forbidden: str) -> str:
    if not isinstance(text, str):
        raise NameInvalid(f"{what}: {text!r} is of type {type(text).__name__}; give a str")
    if not text:
        raise NameInvalid(f"{what}: it is empty; give 1 to {LONGEST} characters")
    if len(text) > LONGEST:
        raise NameInvalid(f"{what}: {text[:40]!r}… has {len(text)} characters; at most {LONGEST} are allowed")
    if text in (".", ".."):
        raise NameInvalid(f"{what}: {text!r} means a folder to file systems; choose another")
    for char in text:
        if char in forbidden or not (char.isprintable() or char == "\u00a0"):
            raise NameInvalid(
                f"{what}: {text!r} holds {char!r}; use printable characters other than {' '.join(forbidden)}"
            )
    if text[0].isspace() or text[-1].isspace():
        raise NameInvalid(f"{what}: {text!r} begins or ends with white space; strip it")
    return text


def allowed_name(text: str) -> str:
    """A name that `check_name` allows for a text of somebody else's: the text itself, or one that is made of it.

    A made name is always the same for one text, and other texts have other ones: it ends with a digest of the text.
    """
    try:
        return check_name(text, "name")
    except NameInvalid:
        digest = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGEST]
        readable = "".join(char if char.isprintable() and char not in "/[]" else "-" for char in text)
        return f"{readable.strip()[: LONGEST - 1 - _DIGEST]}~{digest}"


def short_type(name: str) -> str:
    """The class's own name, of a qualified one."""
    return name.rpartition(".")[2]


def short_reason(text: str) -> str:
    """A recorded `package.module.Error: message` for people: with the class's own name alone."""
    kind, colon, rest = text.partition(": ")
    return text if " " in kind else f"{short_type(kind)}{colon}{rest}"


class NewIds:
    """Makes saga ids: a part that no other process has, and a count.

    Args:
        unique: Gives a text that no other process (nor an earlier run of this one) gives.
    """

    def __init__(self, unique: Callable[[], str]) -> None:
        self._unique = unique
        self.renew()

    def renew(self) -> None:
        """Take a new unique part; to be called in the child after a fork."""
        self._prefix = self._unique()
        self._count = 0

    def next(self) -> str:
        """An id that was never given before."""
        self._count += 1
        return f"{self._prefix}{self._count:x}"


def key(saga_id: str, node: str, direction: Direction) -> str:
    """The idempotency key of a node's action or undo; the same over retries, crashes and adoptions."""
    return f"{saga_id}/{node}/{direction}"


def element(node: str, position: int) -> str:
    """The name of one element of a fan-out."""
    return f"{node}[{position}]"


def inside(subsaga: str, node: str) -> str:
    """The path of a node inside a subsaga."""
    return f"{subsaga}/{node}"
