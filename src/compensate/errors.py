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

    Durability:
        An error says nothing by itself about what is stored; each class says it.

    Example:
        ```python
        from compensate import CompensateError, open_store

        try:
            open_store("orders.db")
        except CompensateError as error:
            print(type(error).__name__, error)
        ```
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
    """A saga, action or dag is defined wrongly. Never worth a retry: change the code.

    The message names the file and line where that can be known, what is wrong, and what to write instead.

    Durability:
        Nothing was stored and nothing ran: it is raised when the definition is made, or when a saga is started.

    Example:
        ```python
        from compensate import DefinitionError, action

        try:

            @action
            async def book(to) -> str: ...  # a parameter without a type cannot be stored

        except DefinitionError as error:
            assert "parameter to has no annotation" in str(error)
        ```
    """


class SubsagaCreateFailed(DefinitionError):
    """A subsaga does not fit the place where it is put: its params, or its output. Never worth a retry.

    Durability:
        Nothing was stored and nothing ran.

    Example:
        ```python
        from compensate import SubsagaCreateFailed, action, saga, subsaga_node


        @action
        async def ship(order: int) -> str:
            return f"order {order} sent"


        @saga
        def shipping(order: int) -> str:
            return ship(order)


        try:
            subsaga_node(
                "ship", shipping, params_node="order", inputs={"order": 1}
            )  # one of the two would do
        except SubsagaCreateFailed as error:
            print(error)
        ```
    """


class NameInvalid(CompensateError, ValueError):
    """An id or a name cannot be used: empty, too long, or with forbidden characters. Choose another.

    Durability:
        Nothing was stored and nothing ran.

    Example:
        ```python
        from compensate import NameInvalid, action, saga


        @action
        def pass_on(x: float = 0.0) -> float:
            return x


        @saga
        def one_step(x: float = 0.0) -> float:
            return pass_on(x)


        try:
            one_step.with_id("")
        except NameInvalid as error:
            print(error)
        ```
    """


class ParamsInvalid(CompensateError, TypeError):
    """The params given to a saga do not fit its signature. A retry with the same params fails again.

    Durability:
        Nothing was stored and nothing ran.

    Example:
        ```python
        from compensate import ParamsInvalid, action, connect, saga


        @action
        def double(x: int) -> int:
            return 2 * x


        @saga
        def doubled(x: int) -> int:
            return double(x)


        with connect("memory://") as c:
            try:
                c.run(doubled, "three")  # type: ignore[arg-type]
            except ParamsInvalid as error:
                print(error)
        ```
    """


class SerializeFailed(CompensateError, ValueError):
    """A value cannot be written to the log without changing it.

    It is not of its annotated type, or breaks a constraint. What an action returned and cannot be stored leaves its
    node in doubt; the action is not run again to learn the value, since it would do the same.

    Durability:
        The value was not written.

    Example:
        ```python
        from compensate import SerializeFailed, action, saga


        @action
        def pass_on(x: float = 0.0) -> float:
            return x


        @saga
        def one_step(x: float = 0.0) -> float:
            return pass_on(x)


        try:
            one_step.params["x"].encode("three")
        except SerializeFailed as error:
            print(error)
        ```
    """


class DeserializeFailed(CompensateError, ValueError):
    """Stored data does not decode as the type that the code expects today.

    A coordinator parks a saga whose stored values its code cannot read; it goes on when code is deployed that can.
    Where a caller asks for a value as another type, nothing else is affected.

    Durability:
        The stored data is as it was.

    Example:
        ```python
        from compensate import DeserializeFailed, action, connect, saga


        @action
        def name() -> str:
            return "Ann"


        @saga
        def who() -> str:
            return name()


        with connect("memory://") as c:
            c.run(who.with_id("i"))
            try:
                c.get("i").output("name", tp=int)
            except DeserializeFailed as error:
                print(error)
        ```
    """


# -- looking things up -----------------------------------------------------


class NotFound(CompensateError, LookupError):
    """Something was asked for by a name that nobody has: an action, a saga, a node, a store.

    Durability:
        Nothing was changed.

    Example:
        ```python
        from compensate import ActionRegistry, NotFound

        try:
            ActionRegistry().get("ship")
        except NotFound as error:
            print(error)
        ```
    """


class ActionNotFound(NotFound):
    """No action of that name is registered. Import the module that defines it, or give `actions=[...]`.

    Durability:
        Nothing was changed. A stored saga waits for a worker that has the action.

    Example:
        ```python
        from compensate import ActionNotFound, ActionRegistry

        try:
            ActionRegistry().get("ship")
        except ActionNotFound as error:
            assert "ship" in str(error)
        ```
    """


class SagaNotFound(NotFound):
    """No saga with that id, or no saga definition of that name. A saga that was deleted is not found either.

    Durability:
        Nothing was changed.

    Example:
        ```python
        from compensate import SagaNotFound, connect

        with connect("memory://") as c:
            try:
                c.get("order-7")
            except SagaNotFound as error:
                print(error)
        ```
    """


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

    It is the `__cause__` of `RolledBack` and `Stuck` when the original exception object is not at hand, as after a
    restart.

    Args:
        node: Path of the node.
        type: Qualified name of the original exception's class.
        message: Its text.
        traceback: The formatted traceback, or `""`.

    Attributes:
        node: As above, like the next three.
        type: As above.
        message: As above.
        traceback: As above.

    Durability:
        It is read from the log, so it is the same in every process and after every restart.

    Example:
        ```python
        from compensate import ActionFailed

        recorded = ActionFailed("charge", "builtins.ValueError", "the card has expired")
        assert str(recorded) == "charge: ValueError: the card has expired"
        assert isinstance(recorded.convert(ValueError), ValueError)
        assert recorded.convert(KeyError) is None
        ```
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
    """A saga did not complete: the base of `RolledBack` and `Stuck`. Its `__cause__` is the first error.

    Args:
        message: The text.
        saga_id: Which saga.

    Attributes:
        saga_id: As above.

    Durability:
        The end that it tells of is in the log. Starting the same id again gives the same error; it does not run again.

    Example:
        ```python
        from compensate import SagaError, action, connect, saga


        @action
        def fail() -> None:
            raise ValueError("no")


        @saga
        def failing() -> None:
            fail()


        with connect("memory://") as c:
            try:
                c.run(failing.with_id("i"))
            except SagaError as error:
                assert error.saga_id == "i"
                assert isinstance(error.convert(ValueError), ValueError)
        ```
    """

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

    Text and attributes are the same whether the saga was rolled back in this process or before a restart. To try the
    work again, start it under another id.

    Args:
        message: The text.
        saga_id: Which saga.
        node: Path of the node that failed first and so began the rollback; `""` for a request or a deadline.
        reason: Why that node failed, or why else the saga was rolled back, in words.

    Attributes:
        node: As above.
        reason: As above.

    Durability:
        The end is in the log; every undo had finished before it was written.

    Example:
        ```python
        from compensate import RolledBack, action, connect, saga


        @action
        def fail() -> None:
            raise ValueError("no room left")


        @saga
        def failing() -> None:
            fail()


        with connect("memory://") as c:
            try:
                c.run(failing)
            except RolledBack as error:
                assert (error.node, error.reason) == ("fail", "ValueError: no room left")
        ```
    """

    def __init__(self, message: str, *, saga_id: str, node: str = "", reason: str = "") -> None:
        super().__init__(message, saga_id=saga_id)
        self.node = node
        self.reason = reason


class Stuck(SagaError):
    """No legal automatic step is left; an operator decides with `retry`, `skip` or `resolve`.

    Its `__cause__` is the error of the first of `nodes`. Text and attributes are the same whether the saga got stuck
    in this process or before a restart.

    Args:
        message: The text.
        saga_id: Which saga.
        nodes: Paths of the nodes that need a decision; empty if the saga is parked.
        reasons: Why each of them needs one, in words, by path.
        choices: What an operator can choose for each of them, by path.
        failed_node: Path of the node that failed first and so began the rollback; where the saga only goes forward,
            of the first node that was given up. `""` if the rollback was asked for, or a deadline began it.
        failed_reason: Why that node failed, or why else the saga was being rolled back, in words. `""` if it was not.
        parked: Why the code at hand does not fit the stored saga; `""` if the saga is not parked.

    Attributes:
        nodes: As above, like all that follow.
        reasons: As above.
        choices: As above.
        failed_node: As above.
        failed_reason: As above.
        parked: As above.

    Durability:
        That it is stuck is in the log; nothing of the saga runs until a decision is recorded. A parked saga goes on by
        itself when a worker has code that fits it.

    Example:
        ```python
        from compensate import Permanent, Stuck, action, connect, saga


        @action
        def open_account() -> str:
            return "account"


        @open_account.undo
        def close_account(account: str) -> None:
            raise Permanent("there is money on it")


        @action
        def send_card(account: str) -> None:
            raise RuntimeError("no address")


        @saga
        def welcome() -> None:
            send_card(open_account())


        with connect("memory://", sagas=[welcome]) as c:
            try:
                c.run(welcome.with_id("ann"))
            except Stuck as error:
                assert error.choices == {"open_account": ("retry", "skip", "resolve")}
                assert error.failed_node == "send_card"
            c.resolve("ann", "open_account", reason="closed by hand")
        ```
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
    """The id is taken by another saga, or by this one with other params; the message says what differs.

    Starting an id again with the same params is no error: it gives the saga that is there.

    Durability:
        Nothing was changed. Choose another id, or look at the stored saga.

    Example:
        ```python
        from compensate import SagaExists, action, connect, saga


        @action
        def double(x: int) -> int:
            return 2 * x


        @saga
        def doubled(x: int) -> int:
            return double(x)


        with connect("memory://") as c:
            c.run(doubled.with_id("i"), 1)
            assert c.run(doubled.with_id("i"), 1) == 2
            try:
                c.run(doubled.with_id("i"), 3)
            except SagaExists as error:
                print(error)
        ```
    """


class Stopped(CompensateError):
    """The coordinator was shut down before the answer came, or is not open.

    Args:
        message: The text.
        signal: The name of the signal that stopped it, as `SIGTERM`; `""` if it was closed by the program itself.

    Attributes:
        signal: As above.

    Durability:
        A saga that was stored stays so, and is resumed by the next worker on its store. Asking again there is safe.

    Example:
        ```python
        from compensate import Stopped, action, connect, saga


        @action
        def pass_on(x: float = 0.0) -> float:
            return x


        @saga
        def one_step(x: float = 0.0) -> float:
            return pass_on(x)


        with connect("memory://") as c:
            pass
        try:
            c.run(one_step)
        except Stopped as error:
            print(error)
        ```
    """

    def __init__(self, message: str, *, signal: str = "") -> None:
        super().__init__(message)
        self.signal = signal


class IllegalRequest(CompensateError):
    """The request makes no sense in the saga's present state, or here. The message says what would.

    Durability:
        Nothing was changed.

    Example:
        ```python
        from compensate import IllegalRequest, action, connect, saga


        @action
        def double(x: int) -> int:
            return 2 * x


        @saga
        def doubled(x: int) -> int:
            return double(x)


        with connect("memory://", sagas=[doubled]) as c:
            c.run(doubled.with_id("i"), 1)
            try:
                c.retry("i", "double")  # it is not stuck
            except IllegalRequest as error:
                print(error)
        ```
    """


# -- stores ----------------------------------------------------------------


class StoreError(CompensateError):
    """A store could not do what was asked: the base of the errors of stores.

    Durability:
        Only after `Unavailable` may a write have happened; all others changed nothing.

    Example:
        ```python
        from compensate import StoreError, open_store

        try:
            open_store("sqlite://orders.db")  # a path takes three slashes
        except StoreError as error:
            print(error)
        ```
    """


class StoreUrlInvalid(StoreError, ValueError):
    """A store url that names no store; the message lists the forms.

    Durability:
        Nothing was opened or made.

    Example:
        ```python
        from compensate import StoreUrlInvalid, open_store

        try:
            open_store("orders.db")
        except StoreUrlInvalid as error:
            assert "sqlite:///" in str(error)
        ```
    """


class Fenced(StoreError):
    """Another worker has claimed the saga: whoever gets this stops working on it. Never retry the write.

    Durability:
        The refused write was not made, and no write of that epoch ever will be.

    Example:
        ```python
        from compensate import Fenced, StoreError

        assert issubclass(Fenced, StoreError)
        ```
    """


class Conflict(StoreError):
    """The log has moved on: it has to be read again before anything else is done.

    Durability:
        The refused write was not made.

    Example:
        ```python
        from compensate import Conflict, StoreError

        assert issubclass(Conflict, StoreError)
        ```
    """


class Unavailable(StoreError):
    """The store cannot be reached or is busy. The outcome of a write is unknown.

    Starting a saga again under the same id is safe, and so is repeating a request for one.

    Durability:
        A write that failed so may have been made. The library reads the log again before it does anything else.

    Example:
        ```python
        import tempfile
        from pathlib import Path

        from compensate import Unavailable, connect

        with tempfile.TemporaryDirectory() as folder:
            try:
                connect(f"sqlite:///{Path(folder) / 'missing' / 'orders.db'}")
            except Unavailable as error:
                print(error)
        ```
    """


class CorruptLog(StoreError):
    """A log, row or file is damaged or impossible; the message names the place. Never retried, never guessed at.

    Durability:
        The damaged saga is left as it is, and holds up no other. Restore it from a copy.

    Example:
        ```python
        import tempfile
        from pathlib import Path

        from compensate import CorruptLog, connect

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "orders.db"
            path.write_bytes(b"this is no database, " * 100)
            try:
                connect(f"sqlite:///{path}")
            except CorruptLog as error:
                print(error)
        ```
    """


class UnsupportedVersion(StoreError):
    """The stored data was written by a newer version of the library. Upgrade before opening it.

    Durability:
        Nothing was changed.

    Example:
        ```python
        from compensate import StoreError, UnsupportedVersion

        assert issubclass(UnsupportedVersion, StoreError)
        ```
    """


# -- raised by user code inside actions and undos --------------------------


class NoEffect(CompensateError):
    """Raised by an action: nothing under this key happened. It clears every earlier doubt about the node.

    The action may be tried again, as its `retry=` says; the node needs no undo.

    Durability:
        The outcome is recorded before anything else of the saga goes on.

    Example:
        ```python
        from compensate import NoEffect, action


        @action
        async def charge(cents: int) -> str:
            raise NoEffect("the provider does not know this key")
        ```
    """


class Unknown(CompensateError):
    """Raised by an action: it cannot tell whether its effect happened. The node is in doubt.

    It may be tried again under the same key, as its `retry=` says. On a rollback it is undone, too.

    Durability:
        The doubt is recorded; only success or `NoEffect` clears it.

    Example:
        ```python
        from compensate import Unknown, action


        @action
        async def charge(cents: int) -> str:
            raise Unknown("the connection broke before the answer came")
        ```
    """


class Permanent(CompensateError):
    """Raised by an action or undo: trying again is useless. An undo that raises it is stuck at once.

    Durability:
        The outcome is recorded before anything else of the saga goes on.

    Example:
        ```python
        from compensate import Permanent, action


        @action
        async def charge(cents: int) -> str:
            raise Permanent("there is no such account")
        ```
    """


class Refused(NoEffect, Permanent):
    """Raised by an action: the other side refused for good. Nothing happened, and trying again is useless.

    It is both `NoEffect` and `Permanent`, as is any class of your own that inherits from both.

    Durability:
        The outcome is recorded before anything else of the saga goes on.

    Example:
        ```python
        from compensate import Refused, action


        @action
        async def charge(cents: int) -> str:
            raise Refused("the card was declined")
        ```
    """


class InjectedError(CompensateError):
    """An error that a test or drill injected in place of an action's or undo's own result.

    Durability:
        It is recorded like any other error.

    Example:
        ```python
        from compensate import Inject, RolledBack, action, connect, saga


        @action
        def double(x: int) -> int:
            return 2 * x


        @saga
        def doubled(x: int) -> int:
            return double(x)


        with connect("memory://") as c:
            try:
                c.run(doubled, 1, inject={"double": Inject(fail="before")})
            except RolledBack as error:
                assert "InjectedError" in error.reason
        ```
    """
