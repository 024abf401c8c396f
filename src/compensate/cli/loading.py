"""From the command line to code and data: `module:saga`, `--app`, `--deps`, `--params`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from compensate.authoring import Action, ActionRegistry, Saga
from compensate.cli import codes
from compensate.core.dag import Dag
from compensate.errors import CompensateError, DefinitionError


class CliError(CompensateError):
    """Something that the command line refuses by itself; `code` is the exit code."""

    def __init__(self, message: str, code: int = codes.BAD_INPUT) -> None:
        super().__init__(message)
        self.code = code


class ModuleMissing(CliError):
    """The module that was named does not exist."""


class Code:
    """The actions and sagas that a command knows.

    Attributes:
        registry: All of them by name.
        given: The words by which they were asked for, to be repeated in a command to type.
    """

    def __init__(self) -> None:
        self.registry = ActionRegistry()
        self.sagas: list[Saga[..., Any]] = []
        self.given: list[str] = []

    def add(self, spec: str) -> None:
        """Add what `module` or `module:saga` holds.

        Raises:
            CliError: There is no such thing.
            DefinitionError: It is defined wrongly, or a name is taken by something else.
        """
        module, colon, _ = spec.partition(":")
        found = [load_saga(spec)] if colon else sagas_of(load_module(module))
        for saga in found:
            self.add_saga(saga)
        # A stored dag may use actions that no saga of today uses any more.
        for action in actions_of(load_module(module)):
            self.registry.register(action)
        self.given.append(spec)

    def add_saga(self, saga: Saga[..., Any]) -> None:
        """Add one saga and its actions."""
        self.registry.register_saga(saga)
        self.sagas.append(saga)

    def actions(self) -> list[Action[..., Any]]:
        """Every action."""
        return [self.registry.get(name) for name in self.registry.names()]


def looks_like_definition(text: str) -> bool:
    """Whether `text` can be read as `module:saga`."""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])


def load_module(name: str) -> ModuleType:
    """Import a module, from the working directory too, as `python -m` does.

    Raises:
        CliError: It does not exist, or raised.
        DefinitionError: It defines an action or saga wrongly.
    """
    if name.endswith(".py") or "/" in name:
        dotted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise CliError(f"{name!r} is a file; name the module as for `python -m`: {dotted!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise CliError(f"{name!r} is no module name; give one as for `python -m`, like shop.orders")
    here = str(Path.cwd())
    if not sys.flags.safe_path and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except DefinitionError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModuleMissing(
                f"no module named {name!r} (looked in {here} and where Python looks); check the name, or run "
                "this where the module is"
            ) from error
        raise _raised(name, error) from error
    except (Exception, SystemExit) as error:
        raise _raised(name, error) from error


def _raised(module: str, error: BaseException) -> CliError:
    # The last frame outside the import machinery is where the author has to look.
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames[1:] else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" (line {error.lineno} of {error.filename})"
        error = type(error)(error.msg)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return CliError(f"importing {module!r} failed: {said}{where}; --debug shows the traceback")


def _attribute(spec: str, what: str, known: Callable[[ModuleType], list[str]]) -> Any:
    module_name, colon, name = spec.partition(":")
    if not colon or not name:
        raise CliError(f"{spec!r} names no {what}; give it as module:{what}, like shop.orders:{what}")
    module = load_module(module_name)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = known(module)
            near = get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(names) or 'none'}"
            raise CliError(f"module {module_name!r} has no {what} {name!r}; {hint}") from None
    return found


def load_saga(spec: str) -> Saga[..., Any]:
    """The saga that `module:saga` names.

    Raises:
        CliError: There is none.
        DefinitionError: It is defined wrongly.
    """
    found = _attribute(
        spec, "saga", lambda module: [name for name, value in vars(module).items() if isinstance(value, Saga)]
    )
    if not isinstance(found, Saga):
        raise CliError(f"{spec} is {_no_saga(found)}")
    return cast("Saga[..., Any]", found)


def _no_saga(found: object) -> str:
    if isinstance(found, Action):
        return "an action, no saga; call it in a function that is decorated with @saga, and name that"
    if isinstance(found, Dag):
        return "a dag, no saga; name what saga_from_dag(dag, registry) makes of it"
    what = "a function" if inspect.isfunction(found) else f"of type {type(found).__name__}"
    return f"{what}, no saga; decorate the function with @saga"


def sagas_of(module: ModuleType) -> list[Saga[..., Any]]:
    """The sagas that stand in a module, each definition once."""
    found: dict[int, Saga[..., Any]] = {}
    for value in vars(module).values():
        if isinstance(value, Saga):
            value = cast("Saga[..., Any]", value)
            found.setdefault(id(value.definition), value)
    return list(found.values())


def actions_of(module: ModuleType) -> list[Action[..., Any]]:
    """The actions that stand in a module."""
    return [value for value in vars(module).values() if type(value) is Action]


def read_params(text: str) -> bytes:
    """Params from `--params`: JSON, `@file`, or `-` for standard input.

    Raises:
        CliError: It cannot be read.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise CliError(f"--params {text}: {error.strerror}: {text[1:]}") from error


@asynccontextmanager
async def deps_of(spec: str | None) -> AsyncGenerator[Any, None]:
    """What the factory `module:factory` gives; entered and left if it is a context manager.

    Raises:
        CliError: There is no such factory, or it raised.
    """
    if spec is None:
        yield None
        return

    def functions(module: ModuleType) -> list[str]:
        own = [(name, value) for name, value in vars(module).items() if inspect.isfunction(value)]
        return [name for name, value in own if value.__module__ == module.__name__]

    factory = _attribute(spec, "factory", functions)
    if not callable(factory):
        raise CliError(
            f"--deps {spec} is of type {type(factory).__name__}, which cannot be called; give a function"
        )
    async with AsyncExitStack() as stack:
        try:
            made: Any = factory()
            if inspect.isawaitable(made):
                made = await made
            deps = made
            if isinstance(made, AbstractAsyncContextManager):
                deps = await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", made))
            elif isinstance(made, AbstractContextManager):
                deps = stack.enter_context(cast("AbstractContextManager[Any]", made))
        except Exception as error:
            raise CliError(
                f"--deps {spec} raised {type(error).__name__}: {error}", codes.UNEXPECTED
            ) from error
        yield deps


def load_code(specs: Sequence[str]) -> Code:
    """The code that `--app` names, or else the environment's `COMPENSATE_APP` (by commas)."""
    code = Code()
    for spec in specs or [
        one.strip() for one in os.environ.get("COMPENSATE_APP", "").split(",") if one.strip()
    ]:
        code.add(spec)
    return code
