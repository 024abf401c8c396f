"""Every error of the library, under one root.

A message says where, what, why, and what to do. Errors that user code raises
inside an action to say something about its effect (`NoEffect`, `Unknown`,
`Permanent`) live here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

E = TypeVar("E", bound=BaseException)


class CompensateError(Exception):
    """Root of every error that the library raises.

    Every subclass, a user's own included, survives `pickle` and `copy` with its text, its attributes and its notes,
    whatever its constructor takes: the constructor is not called again. As with every exception, pickling drops
    `__cause__`, `__context__` and the traceback.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """How `pickle` and `copy` make it again.

        The default calls the class with `args`, which fails, or changes the text, where the constructor takes
        anything else than the message.
        """
        # A built-in base (OSError, say) adds to `args` what only it knows.
        made: Any = super().__reduce__()
        state: dict[str, Any] = dict(made[2]) if len(made) > 2 else {}
        for name in _slots(type(self)):
            if hasattr(self, name):
                state[name] = getattr(self, name)
        return _made_again, (type(self), made[1], self.args), state

    def __setstate__(self, state: Mapping[str, Any] | None) -> None:
        """Take the attributes back; also those of a frozen dataclass."""
        for name, value in (state or {}).items():
            object.__setattr__(self, name, value)


def _slots(kind: type) -> list[str]:
    """The names in the `__slots__` of a class and its bases, as attributes."""
    names: list[str] = []
    for base in kind.__mro__:
        own = base.__dict__.get("__slots__", ())
        for name in (own,) if isinstance(own, str) else own:
            private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _made_again(kind: type[CompensateError], args: tuple[Any, ...], own: tuple[Any, ...]) -> CompensateError:
    """An instance without its attributes, made by the built-in class that it is, not by its own constructor."""
    builtin: Any = kind
    while builtin.__module__ != "builtins":
        builtin = builtin.__base__  # the one that says how the object is laid out
    error: CompensateError = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)
    object.__setattr__(error, "args", own)
    return error


# -- the author's mistakes -------------------------------------------------


class DefinitionError(CompensateError):
    """A saga, action or dag is defined wrongly. Never worth a retry: change the code."""


class SubsagaCreateFailed(DefinitionError):
    """A subsaga does not fit the place where it is put (its params, its output)."""


class NameInvalid(CompensateError, ValueError):
    """An id or a name cannot be used: empty, too long, or with forbidden characters."""


class ParamsInvalid(CompensateError, TypeError):
    """The params given to a saga do not fit its signature. Nothing was stored."""


class SerializeFailed(CompensateError, ValueError):
    """A value cannot be written to the log without changing it."""


class DeserializeFailed(CompensateError, ValueError):
    """Stored data does not decode as the type that the code expects today."""


# -- looking things up -----------------------------------------------------


class NotFound(CompensateError, LookupError):
    """Something was asked for by a name that nobody has."""


class ActionNotFound(NotFound):
    """No action of that name is registered."""


class SagaNotFound(NotFound):
    """No saga with that id, or no saga definition of that name."""


# -- names of classes -------------------------------------------------------

_MAIN: Final = ("__main__", "__mp_main__")
"""What the module that a program was started with is called inside it; the other in a child of `multiprocessing`."""

# Past whatever a metaclass of the user's puts in their place.
_MODULE_OF: Final = type.__dict__["__module__"].__get__
_NAME_OF: Final = type.__dict__["__qualname__"].__get__

_real_module: Callable[[str], str] = str


def resolve_main_with(resolve: Callable[[str], str]) -> None:
    """Say how to find the name under which other programs import the module that is called `__main__` here."""
    global _real_module  # noqa: PLW0603 - this module and the core may not look at the interpreter themselves
    _real_module = resolve


def qualified(kind: type) -> str:
    """The name under which logs and retry policies know a class: the same in every program that loads its file.

    In the program that was started with that file its module is called `__main__`; it is named as others import it.
    """
    module, name = _MODULE_OF(kind), _NAME_OF(kind)
    if type(module) is not str:
        module = "None" if module is None else "?"
    return f"{_real_module(module) if module in _MAIN else module}.{str.__str__(name)}"


def same_class(stored: str, name: str) -> bool:
    """Whether a stored name means the class that `qualified` calls `name`.

    A name that could not be resolved when it was stored (in an interactive session, or by an older version) means the
    class of that name in whatever module it is now.
    """
    if stored == name:
        return True
    module, dot, rest = stored.partition(".")
    return module in _MAIN and name.endswith(dot + rest) and not name.startswith("builtins.")


# -- what a saga came to ---------------------------------------------------


class ActionFailed(CompensateError):
    """An action's (or undo's) error as the log keeps it: data, not the live object.

    It is the `__cause__` of `RolledBack` and `Stuck` when the original
    exception object is not at hand, as after a restart.

    Attributes:
        node: Name of the node.
        type: Qualified name of the original exception's class.
        message: Its text.
        traceback: The formatted traceback, or `""`.
    """

    def __init__(self, node: str, type: str, message: str, traceback: str = "") -> None:
        short = type.rpartition(".")[2]
        super().__init__(f"{node}: {short}: {message}" if message else f"{node}: {short}")
        self.node = node
        self.type = type
        self.message = message
        self.traceback = traceback

    def convert(self, kind: type[E], make: Callable[[str], E] | None = None) -> E | None:
        """Return the error as `kind` if that is what was raised, else `None`.

        Args:
            kind: The user's own error class.
            make: Builds an instance from the message; by default the class that was raised.

        Returns:
            An instance whose `__cause__` is this error, or `None` when the
            recorded class is neither `kind` nor, as far as it is loaded, a subclass.

        Raises:
            DeserializeFailed: The class does not take the message alone; give `make`.
        """
        raised = _named(kind, self.type)
        if raised is None:
            return None
        build: Any = make or raised
        try:
            made: E = build(self.message)
        except TypeError as error:
            raise DeserializeFailed(
                f"{self}: {raised.__qualname__} cannot be made of its message alone ({error}); say how with make="
            ) from error
        made.__cause__ = self
        return made


def _named(kind: type[E], name: str) -> type[E] | None:
    """The class of that qualified name: `kind` or a subclass of it, as far as they are loaded."""
    open_ = [kind]
    while open_:
        one = open_.pop()
        if same_class(name, qualified(one)):
            return one
        open_.extend(one.__subclasses__())
    return None


class SagaError(CompensateError):
    """A saga did not complete. `saga_id` names it; `__cause__` is the first error."""

    def __init__(self, message: str, *, saga_id: str) -> None:
        super().__init__(message)
        self.saga_id = saga_id

    def convert(self, kind: type[E], make: Callable[[str], E] | None = None) -> E | None:
        """The user's own error behind this one, if it is a `kind`: the same whether it was raised here or is recorded.

        Args:
            kind: The user's own error class.
            make: Builds an instance from a recorded message; see `ActionFailed.convert`.

        Returns:
            The error itself where it was raised in this process; else one made of the record, whose `__cause__` is
            the `ActionFailed`. `None` if it is of another class, or there is none.

        Raises:
            DeserializeFailed: As `ActionFailed.convert`.
        """
        cause = self.__cause__
        if isinstance(cause, ActionFailed) and (made := cause.convert(kind, make)) is not None:
            return made
        return cause if isinstance(cause, kind) else None


class RolledBack(SagaError):
    """The saga was rolled back: everything that may have happened is undone.

    Text and attributes are the same whether the saga was rolled back in this process or before a restart.

    Attributes:
        node: Path of the node that failed first and so began the rollback; `""` for a request or a deadline.
        reason: Why that node failed, or why else the saga was rolled back, in words.
    """

    def __init__(self, message: str, *, saga_id: str, node: str = "", reason: str = "") -> None:
        super().__init__(message, saga_id=saga_id)
        self.node = node
        self.reason = reason


class Stuck(SagaError):
    """No legal automatic step is left; an operator decides with `retry`, `skip` or `resolve`.

    Its `__cause__` is the error of the first of `nodes`. Text and attributes are the same whether the saga got stuck
    in this process or before a restart.

    Attributes:
        nodes: Paths of the nodes that need a decision; empty if the saga is parked.
        reasons: Why each of them needs one, in words, by path.
        choices: What an operator can choose for each of them, by path.
        failed_node: Path of the node that failed first and so began the rollback; where the saga only goes forward,
            of the first node that was given up. `""` if the rollback was asked for, or a deadline began it.
        failed_reason: Why that node failed, or why else the saga was being rolled back, in words. `""` if it was not.
        parked: Why the code at hand does not fit the stored saga; `""` if the saga is not parked.
    """

    def __init__(
        self,
        message: str,
        *,
        saga_id: str,
        nodes: Sequence[str] = (),
        reasons: Mapping[str, str] | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
        failed_node: str = "",
        failed_reason: str = "",
        parked: str = "",
    ) -> None:
        super().__init__(message, saga_id=saga_id)
        self.nodes = tuple(nodes)
        self.reasons: dict[str, str] = dict(reasons or {})
        self.choices: dict[str, tuple[str, ...]] = {
            node: tuple(verbs) for node, verbs in (choices or {}).items()
        }
        self.failed_node = failed_node
        self.failed_reason = failed_reason
        self.parked = parked


class SagaExists(CompensateError):
    """The id is taken by another saga, or by this one with other params. Nothing was changed."""


class Stopped(CompensateError):
    """The coordinator was shut down. A stored saga is gone on with by the next coordinator on its store.

    Attributes:
        signal: The name of the signal that stopped it, as `SIGTERM`; `""` if it was closed by the program itself.
    """

    def __init__(self, message: str, *, signal: str = "") -> None:
        super().__init__(message)
        self.signal = signal


class IllegalRequest(CompensateError):
    """The request makes no sense in the saga's present state. Nothing was changed."""


# -- stores ----------------------------------------------------------------


class StoreError(CompensateError):
    """A store could not do what was asked."""


class StoreUrlInvalid(StoreError, ValueError):
    """A store url that names no store. Nothing was opened."""


class Fenced(StoreError):
    """Another coordinator has adopted the saga: stop working on it. Never retry."""


class Conflict(StoreError):
    """The log has moved on: read it again before anything else is done."""


class Unavailable(StoreError):
    """The store cannot be reached or is busy. The outcome of a write is unknown; retry after reading."""


class CorruptLog(StoreError):
    """A log, row or file is damaged or impossible. Never retried, never guessed at."""


class UnsupportedVersion(StoreError):
    """The stored data was written by a newer version of the library. Upgrade before opening it."""


# -- raised by user code inside actions and undos --------------------------


class NoEffect(CompensateError):
    """Raised by an action: nothing under this key happened. Clears every earlier doubt about the node."""


class Unknown(CompensateError):
    """Raised by an action: it cannot tell whether its effect happened. The node is in doubt."""


class Permanent(CompensateError):
    """Raised by an action or undo: trying again is useless. An undo that raises it is stuck at once."""


class Refused(NoEffect, Permanent):
    """Raised by an action: the other side refused for good. Nothing happened, and trying again is useless.

    Both `NoEffect` and `Permanent`, as is any class of your own that inherits from both.
    """


class InjectedError(CompensateError):
    """An error that a test or drill injected in place of an action's or undo's own result."""
