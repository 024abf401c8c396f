"""User errors as data, and back."""

from __future__ import annotations

from os.path import dirname
from types import TracebackType
from typing import Any, Final, cast

from compensate.core import events as e
from compensate.errors import qualified

_ITEMS: Final[Any] = vars(list)["__iter__"]
_LONGEST_MESSAGE: Final = 8_000
_LONGEST_LEAF: Final = 400
"""Of each leaf's text in the message of a group."""
_MOST_FRAMES: Final = 20
_MOST_NOTES: Final = 20
_MOST_CAUSES: Final = 8
_MOST_LEAVES: Final = 16
_PACKAGE: Final = dirname(dirname(__file__))  # noqa: PTH120 - pathlib would cost every import of the package 3 ms
_OWN: Final = (f"{_PACKAGE}/runtime/", f"{_PACKAGE}/inspection/")
"""Where the code stands whose frames are left out at the outer end of a recorded traceback."""


# What every exception has, read past whatever a class of the user's puts in its place: its own may raise, or lie.
_CAUSE: Final = BaseException.__dict__["__cause__"].__get__
_CONTEXT: Final = BaseException.__dict__["__context__"].__get__
_SUPPRESS: Final = BaseException.__dict__["__suppress_context__"].__get__
_TRACEBACK: Final = BaseException.__dict__["__traceback__"].__get__
_EXCEPTIONS: Final = BaseExceptionGroup.__dict__["exceptions"].__get__
_MRO: Final = type.__dict__["__mro__"].__get__
_NAME: Final = type.__dict__["__name__"].__get__


def is_a(error: BaseException, classes: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """`isinstance` by the real class of an error: what it says of its own class does not count."""
    return issubclass(type(error), classes)


def cause_of(error: BaseException) -> BaseException | None:
    """What it was raised from."""
    cause: BaseException | None = _CAUSE(error)
    return cause


def context_of(error: BaseException) -> BaseException | None:
    """What was being handled when it was raised."""
    context: BaseException | None = _CONTEXT(error)
    return context


def traceback_of(error: BaseException) -> TracebackType | None:
    """Where it was raised."""
    traceback: TracebackType | None = _TRACEBACK(error)
    return traceback


def parts_of(error: BaseException) -> tuple[BaseException, ...]:
    """What a group holds; nothing for an error that is none."""
    parts: tuple[BaseException, ...] = _EXCEPTIONS(error) if is_a(error, BaseExceptionGroup) else ()
    return parts


def error_info(error: BaseException) -> e.ErrorInfo:
    """What the log keeps of an error: class, text, place, notes, causes, and the leaves of a group.

    It never fails, whatever the error's own methods do, and keeps a bounded amount of each.
    """
    try:
        return _info(error)
    except Exception as broken:
        return e.ErrorInfo(
            "builtins.Exception", f"<it is not to be had: {_NAME(type(broken))}>", _where(traceback_of(error))
        )


def _info(error: BaseException) -> e.ErrorInfo:
    leaves = _leaves(error)
    causes = [_alone(cause, ()) for cause in _causes(error)]
    info = _alone(error, leaves)
    if not leaves and not causes:
        return info
    return e.ErrorInfo(
        info.type,
        info.message,
        info.traceback,
        info.notes,
        tuple(causes),
        tuple(_alone(leaf, ()) for leaf in leaves),
    )


def _alone(error: BaseException, leaves: list[BaseException] | tuple[()]) -> e.ErrorInfo:
    """An error without those that belong to it."""
    message = _text(error)
    if leaves:
        told = [f"{_NAME(type(leaf))}: {_text(leaf)[:_LONGEST_LEAF]}".rstrip(": ") for leaf in leaves]
        message = f"{message}: {'; '.join(told)}"
    return e.ErrorInfo(
        _storable(qualified(type(error))),
        _storable(message),
        _where(traceback_of(error)),
        tuple(_storable(note) for note in _notes(error)),
    )


def _notes(error: BaseException) -> list[str]:
    try:
        notes: object = getattr(error, "__notes__", ())
    except BaseException:
        return []
    if not issubclass(type(notes), list):
        return []
    every: list[object] = list(_ITEMS(notes))
    kept = [cast("str", note) for note in every if issubclass(type(note), str)]
    return [str.__str__(note) for note in kept[:_MOST_NOTES]]


def _text(error: BaseException) -> str:
    try:
        return str.__str__(str(error))  # a subclass of `str` cannot be stored
    except BaseException as broken:
        return f"<its text is not to be had: {_NAME(type(broken))}>"


def _leaves(error: BaseException) -> list[BaseException]:
    """The first leaves of a group; nothing for an error that is none."""
    found: list[BaseException] = []
    open_ = list(reversed(parts_of(error)))
    seen = {id(error)}
    while open_ and len(found) < _MOST_LEAVES:
        one = open_.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if parts := parts_of(one):
            open_.extend(reversed(parts))
        else:
            found.append(one)
    return found


def _causes(error: BaseException) -> list[BaseException]:
    """What Python would print above an error: its cause, or what was being handled, and so on."""
    found: list[BaseException] = []
    seen = {id(error)}
    one = error
    while len(found) < _MOST_CAUSES:
        behind = cause_of(one)
        if behind is None and not _SUPPRESS(one):
            behind = context_of(one)
        if behind is None or id(behind) in seen:
            break
        seen.add(id(behind))
        found.append(behind)
        one = behind
    return found


def _storable(text: str) -> str:
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}… ({len(text)} characters)"
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _where(traceback: TracebackType | None) -> str:
    # Frames by hand: formatting with source lines reads files and costs more than a whole rollback in memory.
    # The outermost frames are the runtime's own.
    lines: list[str] = []
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_OWN):
        traceback = traceback.tb_next
    while traceback is not None:
        code = traceback.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_name}')
        traceback = traceback.tb_next
    if len(lines) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        lines[half:-half] = [f"  … {len(lines) - 2 * half} more frames …"]
    return _storable("\n".join(lines))


def kinds(error: BaseException) -> tuple[str, ...]:
    """Qualified names of the error's class and its bases; retry policies are held against them."""
    return tuple(qualified(kind) for kind in _MRO(type(error)))
