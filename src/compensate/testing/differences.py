"""How two snapshots of a world differ, part by part, in lines that people can read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

import msgspec

_DEEPEST: Final = 40
_LONGEST: Final = 120
_MOST_LINES: Final = 12


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()
"""Stands where one of the two snapshots has nothing."""


class Change(NamedTuple):
    """One place where two snapshots differ: what stood there before, and what after."""

    path: str
    before: object
    after: object

    def __str__(self) -> str:
        where = self.path or "the world"
        if self.before is MISSING:
            return f"+ {where}: {_short(self.after)}"
        if self.after is MISSING:
            return f"- {where}: {_short(self.before)}"
        return f"~ {where}: {_short(self.before)} -> {_short(self.after)}"


def difference(before: object, after: object) -> list[Change]:
    """Where two snapshots differ, in dicts, sequences, sets, dataclasses and structs of any depth; empty if nowhere.

    They count as equal when `==` says so.
    """
    return list(_walk("", before, after, 0))


def lines(changes: Sequence[Change]) -> list[str]:
    """The changes, one a line: `+` came, `-` went, `~` is another; the first dozen."""
    shown = [str(change) for change in changes[:_MOST_LINES]]
    if len(changes) > _MOST_LINES:
        shown.append(f"… and {len(changes) - _MOST_LINES} more")
    return shown


def _walk(path: str, before: Any, after: Any, depth: int) -> Iterator[Change]:
    if before is after or bool(before == after):
        return
    one, other = _parts(before), _parts(after)
    if one is None or other is None or type(before) is not type(after) or depth > _DEEPEST:
        yield Change(path, before, after)
        return
    found = False
    for name in [*one, *(name for name in other if name not in one)]:
        for change in _walk(path + name, one.get(name, MISSING), other.get(name, MISSING), depth + 1):
            found = True
            yield change
    if not found:  # its own `==` sees more than its parts show
        yield Change(path, before, after)


def _parts(value: Any) -> dict[str, Any] | None:
    """What a value consists of, under the text that leads there; `None` if it is one piece."""
    parts: Any = value  # the checks below say nothing of what it is made of
    if isinstance(value, Mapping):
        return {f"[{key!r}]": part for key, part in parts.items()}
    if isinstance(value, AbstractSet):
        return {f"{{{part!r}}}": part for part in parts}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return {f"[{i}]": part for i, part in enumerate(parts)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f".{field.name}": getattr(value, field.name, MISSING) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return {f".{name}": getattr(value, name, MISSING) for name in value.__struct_fields__}
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
