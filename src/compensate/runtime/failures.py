"""User errors as data, and back."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from compensate.core import events as e
from compensate.core.policy import qualified
from compensate.errors import ActionFailed

_LONGEST_MESSAGE: Final = 8_000
_MOST_FRAMES: Final = 20


def error_info(error: BaseException) -> e.ErrorInfo:
    """What the log keeps of an error: class, text, and where it was raised. Never fails, whatever `__str__` does."""
    try:
        message = str.__str__(str(error))  # a subclass of `str` cannot be stored
    except Exception as broken:
        message = f"<its text is not to be had: {type(broken).__name__}>"
    return e.ErrorInfo(_storable(qualified(type(error))), _storable(message), _where(error.__traceback__))


def _storable(text: str) -> str:
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}… ({len(text)} characters)"
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _where(traceback: TracebackType | None) -> str:
    # Frames by hand: formatting with source lines reads files and costs more than a whole rollback in memory.
    # The outermost frame is the runtime's own.
    lines: list[str] = []
    traceback = None if traceback is None else traceback.tb_next
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
    return tuple(qualified(kind) for kind in type(error).__mro__)


def revive(node: str, info: e.ErrorInfo) -> ActionFailed:
    """The error as an exception, when the original object is not at hand."""
    return ActionFailed(node, info.type, info.message, info.traceback)
