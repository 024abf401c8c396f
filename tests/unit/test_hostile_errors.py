"""Errors whose own class lies about them or raises when it is asked: what is known of them comes from Python itself."""

from __future__ import annotations

from typing import Any

import pytest

from compensate import NoEffect, RolledBack, SagaExecutor, Unknown, action, saga
from compensate.runtime.calls.outcomes import Circumstances, leaves, outcome
from compensate.runtime.failures import error_info, kinds


def _raising(*names: str, base: type[BaseException] = Exception) -> type[BaseException]:
    def refuse(self: object) -> Any:
        raise RuntimeError("not to be asked")

    return type("Hostile", (base,), {name: property(refuse) for name in names})


class Secretive(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Hiding(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__mro__", "__name__", "__qualname__", "__module__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class Hidden(Exception, metaclass=Hiding):
    pass


class NoModule(Exception):
    pass


NoModule.__module__ = None  # type: ignore[assignment]


def _lying(name: str, value: object) -> type[BaseException]:
    base = ExceptionGroup if name == "exceptions" else Exception
    made: Any = type("Lying", (base,), {name: property(lambda self: value)})
    return made  # type: ignore[no-any-return]


PROPERTIES = ("__notes__", "__cause__", "__context__", "__suppress_context__", "__traceback__", "__class__")
HOSTILE: dict[str, BaseException] = {
    **{f"{name} raises": _raising(name)() for name in PROPERTIES},
    **{f"{name} lies": _lying(name, 5)() for name in PROPERTIES if name != "__class__"},
    "all of them raise": _raising(*PROPERTIES)(),
    "says it is clean": _lying("__class__", NoEffect)(),
    "says it ends the program": _lying("__class__", SystemExit)(),
    "attributes raise": Secretive(),
    "metaclass hides names": Hidden(),
    "no module": NoModule(),
    "exceptions raise": _raising("exceptions", base=ExceptionGroup)("g", [ValueError()]),
    "no exceptions": _lying("exceptions", ())("g", [ValueError()]),
    "group of them": ExceptionGroup("g", [Secretive(), Hidden()]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_error_is_a_failure_like_any_other(name: str) -> None:
    error = HOSTILE[name]
    came = outcome(error, Circumstances())
    assert (came.kind, came.clean, came.final) == ("failed", False, False)
    assert came.error == error_info(error)
    assert "builtins.Exception" in kinds(error)
    late = outcome(error, Circumstances(stopping=True, cancelled=True))
    assert late.kind == "failed"


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_error_of_a_saga_rolls_it_back(name: str) -> None:
    undone: list[int] = []

    @action
    async def first() -> int:
        return 1

    @first.undo
    async def undo_first(value: int) -> None:
        undone.append(value)

    @action
    async def fail(value: int) -> int:
        raise HOSTILE[name]

    @saga
    def hostile() -> int:
        return fail(first())

    with pytest.raises(RolledBack):
        await SagaExecutor(hostile).execute()
    assert undone == [1]


def test_a_group_that_holds_one_error_many_times_holds_it_once() -> None:
    error: Any = ValueError("the leaf")
    for _ in range(100):  # 2 ** 100 ways lead to the leaf
        error = ExceptionGroup("g", [error, error])
    assert [type(part) for part in leaves(error)] == [ValueError]
    assert len(error_info(error).leaves) == 1


def test_a_group_too_large_to_look_at_leaves_doubt() -> None:
    error = ExceptionGroup("g", [NoEffect() for _ in range(20_000)])
    came = outcome(error, Circumstances())
    assert came.kind == "in_doubt"
    assert isinstance(list(leaves(error))[-1], Unknown)
