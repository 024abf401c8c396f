"""What a saga function's source shows and tracing cannot: checked by its syntax tree when the saga is defined.

Python lets nobody refuse `x is None`, a `try` around a call that cannot fail yet, or a plain function that is called
once, at import, instead of in each run. So the source is read. A function whose source is not at hand (typed into an
interpreter, or made by `exec`) is not examined. Only what is certain is refused: a name counts as a reference only
where it is one on every way to that line.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, Literal

from compensate.authoring.impure import is_impure
from compensate.authoring.tracing import constant
from compensate.errors import DefinitionError

Kind = Literal["reference", "given", "references", "container", "literal", "baked", "node", "helper", "plain"]
"""What an expression gives while the function is traced.

`reference`: stands for a value to come. `given`: the same, as the parameter of a nested function that is given nothing
else. `references`: a list or tuple of nothing else. `container`: a list, dict or set that is being filled. `literal`: a
value written in the source. `baked`: the time or chance of the import. `node`: an action or saga, perhaps with
settings. `helper`: a nested function that makes nodes.
"""

Env = dict[str, Kind]

_UNKNOWN: Final[Any] = object()
_SETTINGS: Final = ("options", "after", "when", "with_id")
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_SWALLOWING: Final = ("suppress", "fail_after", "move_on_after")
_FOR_CHECKERS: Final = ("typing", "typing_extensions")
"""Modules whose functions (`assert_type`) do nothing when they are called."""

_TO_COME: Final = ("reference", "given")
_CONTAINERS: Final = (list, dict, set)
_BRANCH: Final = (
    "let an action return a bool and use `.when(flag)`, or decide inside an action that takes the value"
)


def check_source(fn: Callable[..., Any], name: str, makes_node: Callable[[object], bool]) -> None:
    """Refuse a saga function whose source shows that it does something else than it says.

    Args:
        fn: The function.
        name: The saga's name, for messages.
        makes_node: Whether an object, when called in a saga function, makes nodes: an action, a saga, `fan_out`.

    Raises:
        DefinitionError: Names file, line, what is wrong, and what to write instead.
    """
    tree = _tree(fn)
    if tree is not None:
        _Checker(fn, name, makes_node).function(tree)


def _tree(fn: Callable[..., Any]) -> ast.FunctionDef | None:
    """The function's syntax tree, with the line numbers of its file."""
    code: CodeType = fn.__code__
    try:
        lines, first = inspect.getsourcelines(fn)
        indented = lines[0][:1].isspace()
        module = ast.parse(("if 1:\n" if indented else "") + "".join(lines))
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None
    ast.increment_lineno(module, first - 1 - indented)
    found = next((node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)), None)
    if found is None or found.name != code.co_name:
        return None  # the file was changed after it was imported
    return found


class _Checker:
    """Walks one saga function, statement by statement, keeping what each local name stands for."""

    def __init__(self, fn: Callable[..., Any], name: str, makes_node: Callable[[object], bool]) -> None:
        self.file = fn.__code__.co_filename
        self.name = name
        self.makes_node = makes_node
        self.outer = _Names(fn)
        self.locals: set[str] = set()
        self.functions: set[str] = set()
        self.silent = 0
        """Above 0 while something is walked only to learn from it, as a loop's body for what it binds."""

        self.inner: dict[str, _Inner] = {}

    def refuse(self, node: ast.AST, what: str, instead: str) -> None:
        if not self.silent:
            line = getattr(node, "lineno", 0)
            raise DefinitionError(f"{self.file}:{line}: in saga {self.name}: {what}; {instead}")

    def function(self, tree: ast.FunctionDef) -> None:
        arguments = tree.args
        for default in (*arguments.defaults, *(one for one in arguments.kw_defaults if one is not None)):
            self.baked(default, {})
        names = _parameters(arguments)
        self.locals = {*names, *_bound(tree)}
        self.functions = {node.name for node in _functions(tree)}
        env: Env = dict.fromkeys(names, "reference")
        self.inner = _inner(tree)
        if self.inner:
            self.silent += 1
            self.block(tree.body, dict(env))  # what the functions inside are called with
            self.silent -= 1
        self.block(tree.body, env)

    # -- statements --------------------------------------------------------

    def block(self, body: Sequence[ast.stmt], env: Env) -> bool:
        """Walk statements; returns whether what follows them is reached."""
        reached = True
        for statement in body:
            reached = self.statement(statement, env) and reached
        return reached

    def statement(self, node: ast.stmt, env: Env) -> bool:
        match node:
            case ast.Expr(value=ast.Call() as call):
                self.expression(call, env)
                self.unused(call, env)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                self.assign(node, env)
            case ast.If():
                self.expression(node.test, env)
                self.branches([node.body, node.orelse], env)
                return True
            case ast.For() | ast.While():
                self.loop(node, env)
            case ast.Try() | ast.TryStar():
                self.attempt(node, env)
            case ast.With():
                self.within(node, env)
            case ast.Match():
                self.match(node, env)
            case ast.FunctionDef():
                self.nested(node, env)
            case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
                self.children(node, env)
                return False
            case ast.AsyncFunctionDef() | ast.ClassDef():
                pass
            case _:
                self.children(node, env)
        return True

    def assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, env: Env) -> None:
        if node.value is None:
            return
        kind = self.expression(node.value, env)
        if isinstance(node, ast.AugAssign):
            if isinstance(node.target, ast.Name) and env.get(node.target.id) == "references":
                env[node.target.id] = "container"
            return
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            self.bind(target, kind, env, node.value)

    def branches(self, bodies: Sequence[Sequence[ast.stmt]], env: Env) -> None:
        """Walk alternatives; afterwards a name stands for what it does in all that go on."""
        ends: list[Env] = []
        for body in bodies:
            end = dict(env)
            if self.block(body, end):
                ends.append(end)
        merged = _joined(ends) if ends else {}
        env.clear()
        env.update(merged)

    def loop(self, node: ast.For | ast.While, env: Env) -> None:
        def once(into: Env) -> None:
            if isinstance(node, ast.For):
                items = self.expression(node.iter, into)
                self.bind(node.target, "reference" if items == "references" else "plain", into)
            else:
                self.expression(node.test, into)
            self.block(node.body, into)

        learned = dict(env)
        self.silent += 1
        once(learned)
        self.silent -= 1
        start = _joined([env, learned])
        after = dict(start)
        once(after)
        merged = _joined([start, after])
        env.clear()
        env.update(merged)
        self.block(node.orelse, env)

    def attempt(self, node: ast.Try | ast.TryStar, env: Env) -> None:
        call = self.first_node(node.body, env)
        if call is not None:
            self.refuse(
                call,
                "a `try` around the call of an action sees none of its failures: the call only makes a node, and the "
                "action runs later",
                "give the action retry=Retry(...) or an undo, or catch the error inside the action and return what "
                "came of it",
            )
        before = dict(env)
        self.block([*node.body, *node.orelse], env)
        ends = [dict(env)]
        for handler in node.handlers:
            end = _joined([before, env])
            if self.block(handler.body, end):
                ends.append(end)
        merged = _joined(ends)
        env.clear()
        env.update(merged)
        self.block(node.finalbody, env)

    def within(self, node: ast.With, env: Env) -> None:
        call = self.first_node(node.body, env)
        for item in node.items:
            self.expression(item.context_expr, env)
            if call is not None and self.guards(item.context_expr):
                self.refuse(
                    call,
                    f"`with {ast.unparse(item.context_expr)}` around the call of an action does not hold while it "
                    "runs: the call only makes a node, and the action runs later",
                    "put it into the action, or use the action's own retry=, timeout= and undo",
                )
            if item.optional_vars is not None:
                self.bind(item.optional_vars, "plain", env)
        self.block(node.body, env)

    def guards(self, context: ast.expr) -> bool:
        """Whether a context manager is meant to hold while something runs: it swallows errors, limits time or locks."""
        made = context.func if isinstance(context, ast.Call) else context
        found = self.resolve(made)
        name = getattr(found, "__name__", "") if found is not _UNKNOWN else ""
        if isinstance(context, ast.Call):
            bases = [base.__name__ for base in found.__mro__] if isinstance(found, type) else [name]
            return any(base in _SWALLOWING for base in bases)
        return found is not _UNKNOWN and all(hasattr(found, one) for one in ("acquire", "release"))

    def match(self, node: ast.Match, env: Env) -> None:
        kind = self.expression(node.subject, env)
        parts = node.subject.elts if isinstance(node.subject, ast.Tuple) else []
        ends: list[Env] = [dict(env)]
        for case in node.cases:
            end = dict(env)
            self.pattern(case.pattern, node.subject, kind, end)
            if isinstance(case.pattern, ast.MatchSequence) and len(parts) == len(case.pattern.patterns):
                for part, pattern in zip(parts, case.pattern.patterns, strict=True):
                    self.pattern(pattern, part, self.expression(part, env), end)
            if case.guard is not None:
                self.expression(case.guard, end)
            if self.block(case.body, end):
                ends.append(end)
        merged = _joined(ends)
        env.clear()
        env.update(merged)

    def pattern(self, pattern: ast.pattern, subject: ast.expr, kind: Kind, env: Env) -> None:
        if isinstance(pattern, ast.MatchAs) and pattern.pattern is None:
            if pattern.name is not None:
                env[pattern.name] = kind
        elif kind in _TO_COME:
            self.refuse(
                pattern,
                f"`case` looks at {ast.unparse(subject)}, which only stands for a value to come, so it never matches",
                _BRANCH,
            )

    def nested(self, node: ast.FunctionDef, env: Env) -> None:
        """A function inside: its body is walked too, unless a decorator makes something else of it."""
        if node.decorator_list:
            env[node.name] = "plain"
            return
        inner: Env = {**env, **self.params(node)}
        env[node.name] = inner[node.name] = (
            "helper" if self.first_node(node.body, inner) is not None else "plain"
        )
        self.block(node.body, inner)

    def params(self, node: ast.FunctionDef | ast.Lambda) -> Env:
        """What the parameters of a function inside stand for, as far as its calls tell."""
        known = next((one for one in self.inner.values() if one.node is node), None)
        given: set[str] = known.always_given() if known is not None and not self.silent else set()
        return {name: "given" if name in given else "plain" for name in _parameters(node.args)}

    def bind(self, target: ast.expr, kind: Kind, env: Env, value: ast.expr | None = None) -> None:
        match target:
            case ast.Name():
                env[target.id] = kind
            case ast.Tuple() | ast.List():
                values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
                for i, one in enumerate(target.elts):
                    if len(values) == len(target.elts):
                        self.bind(one, self.kind(values[i], env), env, values[i])
                    else:
                        self.bind(one, "reference" if kind == "references" else "plain", env)
            case ast.Starred():
                self.bind(target.value, "plain", env)
            case _:
                pass

    # -- expressions -------------------------------------------------------

    def children(self, node: ast.AST, env: Env) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.expression(child, env)

    def expression(self, node: ast.expr, env: Env) -> Kind:
        """Look through an expression; returns what it gives."""
        match node:
            case ast.Compare():
                self.children(node, env)
                self.identity(node, env)
                self.type_test(node, env)
            case ast.NamedExpr():
                self.bind(node.target, self.expression(node.value, env), env, node.value)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self.comprehension(node, env)
            case ast.Lambda():
                self.expression(node.body, {**env, **self.params(node)})
            case ast.Call():
                self.call(node, env)
            case _:
                self.children(node, env)
        return self.kind(node, env)

    def call(self, node: ast.Call, env: Env) -> None:
        self.expression(node.func, env)
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(node.func, ast.Name) and node.func.id in self.inner:
            self.inner[node.func.id].called(node, lambda value: self.kind(value, env) in _TO_COME)
        for value in values:
            self.expression(value, env)
            if self.makes(node, env) or self.is_constant(node):
                self.baked(value, env)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            filled = node.func.value.id
            if env.get(filled) == "references":
                env[filled] = "container"  # whatever was put into it

    def comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, env: Env
    ) -> Kind:
        inner = dict(env)
        for one in node.generators:
            items = self.expression(one.iter, inner)
            self.bind(one.target, "reference" if items == "references" else "plain", inner)
            for test in one.ifs:
                self.expression(test, inner)
        if isinstance(node, ast.DictComp):
            self.expression(node.key, inner)
            self.expression(node.value, inner)
            return "container"
        item = self.expression(node.elt, inner)
        return "references" if item == "reference" else "container"

    def identity(self, node: ast.Compare, env: Env) -> None:
        sides = [node.left, *node.comparators]
        for i, operator in enumerate(node.ops):
            if not isinstance(operator, ast.Is | ast.IsNot):
                continue
            for side in sides[i : i + 2]:
                if self.kind(side, env) in _TO_COME:
                    always = "False" if isinstance(operator, ast.Is) else "True"
                    self.refuse(
                        node,
                        f"`{ast.unparse(node)}` is always {always} here: a saga is traced before it runs, so "
                        f"{ast.unparse(side)} only stands for a value to come",
                        _BRANCH,
                    )

    def type_test(self, node: ast.Compare, env: Env) -> None:
        for side in (node.left, *node.comparators):
            if not isinstance(side, ast.Call) or len(side.args) != 1 or self.resolve(side.func) is not type:
                continue
            if self.kind(side.args[0], env) in _TO_COME:
                self.refuse(
                    node,
                    f"`{ast.unparse(node)}` does not see the class of a result: a saga is traced before it runs, so "
                    f"{ast.unparse(side.args[0])} only stands for a value to come",
                    _BRANCH,
                )

    def kind(self, node: ast.expr, env: Env) -> Kind:
        """What an expression gives, without looking for mistakes in it."""
        match node:
            case ast.Name():
                known: Kind | None = env.get(node.id)
                if known is not None:
                    return known
                return "node" if node.id not in self.locals and self.is_node(node) else "plain"
            case ast.Constant():
                return "literal"
            case ast.NamedExpr():
                return self.kind(node.value, env)
            case ast.IfExp():
                one, other = self.kind(node.body, env), self.kind(node.orelse, env)
                return one if one == other else "plain"
            case ast.Attribute():
                owner = self.kind(node.value, env)
                if owner in _TO_COME:
                    return owner
                return "node" if self.is_node(node) else "plain"
            case ast.Subscript():
                inner = self.kind(node.value, env)
                if inner == "references" and isinstance(node.slice, ast.Slice):
                    return "references"
                if inner in _TO_COME:
                    return inner
                return "reference" if inner == "references" else "plain"
            case ast.List() | ast.Tuple():
                parts = [self.kind(one, env) for one in node.elts]
                return "references" if parts and set(parts) == {"reference"} else "container"
            case ast.Dict() | ast.Set() | ast.DictComp() | ast.SetComp():
                return "container"
            case ast.Call():
                return self.kind_of_call(node, env)
            case _:
                return "baked" if self.baked_in(node, env) else "plain"

    def kind_of_call(self, node: ast.Call, env: Env) -> Kind:
        if self.makes(node, env) or self.is_constant(node):
            return "reference"
        settings = isinstance(node.func, ast.Attribute) and node.func.attr in _SETTINGS
        if settings and isinstance(node.func, ast.Attribute) and self.is_placing(node.func.value, env):
            return "node"
        if self.baked_in(node, env):
            return "baked"
        return "container" if self.resolve(node.func) in _CONTAINERS else "plain"

    def placed(self, node: ast.expr, env: Env) -> bool:
        return isinstance(node, ast.Call) and self.kind_of_call(node, env) == "node"

    def is_placing(self, node: ast.expr, env: Env) -> bool:
        return self.kind(node, env) == "node" or self.placed(node, env)

    def makes(self, node: ast.Call, env: Env) -> bool:
        """Whether a call makes a node and gives a reference."""
        return self.kind(node.func, env) == "node" or self.placed(node.func, env)

    def is_node(self, node: ast.expr) -> bool:
        found = self.resolve(node)
        return found is not _UNKNOWN and self.makes_node(found)

    def is_constant(self, node: ast.Call) -> bool:
        return self.resolve(node.func) is constant

    def first_node(self, body: Sequence[ast.stmt], env: Env) -> ast.Call | None:
        """The first call in these statements that makes nodes, itself or in a helper."""
        for node in _walk(body):
            if isinstance(node, ast.Call) and (self.makes(node, env) or self.helps(node, env)):
                return node
        return None

    def helps(self, node: ast.Call, env: Env) -> bool:
        """Whether a call is of a plain function that makes nodes."""
        if self.kind(node.func, env) == "helper":
            return True
        found = self.resolve(node.func)
        return isinstance(found, FunctionType) and _calls_nodes(found, self.makes_node, 4)

    # -- what is refused of calls ------------------------------------------

    def baked(self, value: ast.expr, env: Env) -> None:
        found = self.baked_in(value, env)
        if found is not None:
            self.refuse(
                value,
                f"`{ast.unparse(found)}` is evaluated once, when the saga is defined, and every run would get that "
                "same value",
                "call it inside an action that returns it, or take it as a param of the saga",
            )

    def baked_in(self, value: ast.expr, env: Env) -> ast.expr | None:
        """The part of an expression that gives the time or chance of the import."""
        for node in _walk([value]):
            if isinstance(node, ast.Name) and env.get(node.id) == "baked":
                return node
            if isinstance(node, ast.Call) and is_impure(self.resolve(node.func)):
                return node
        return None

    def unused(self, node: ast.Call, env: Env) -> None:
        """Refuse a statement that calls a plain function: it runs once, at import, and in no saga."""
        if self.makes(node, env) or self.is_constant(node) or self.helps(node, env):
            return
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        kinds = [self.kind(value, env) for value in values]
        if {"node", "helper", "container"} & set(kinds):
            return  # a helper that is given actions, or a list to fill
        refers = bool({"reference", "references"} & set(kinds))
        found = self.resolve(node.func)
        if getattr(found, "__module__", "") in _FOR_CHECKERS:
            return
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in self.functions or (isinstance(found, FunctionType) and found.__name__ == called):
            # Without a reference it may be plain Python on plain values, such as a check of a known list.
            refused = refers or set(kinds) <= {"literal"}
        else:
            owner = getattr(found, "__self__", None)
            known = found is not _UNKNOWN and getattr(found, "__name__", "") == called
            refused = refers and known and not isinstance(owner, _CONTAINERS)
        if not refused:
            return
        self.refuse(
            node,
            f"`{ast.unparse(node)}` is no action and its result is not used: it runs once, when the saga is defined, "
            "and never when a saga runs",
            "decorate the function with @action, or call it inside one",
        )

    def resolve(self, node: ast.expr) -> Any:
        """The object that a name or a dotted name means at the time of the definition."""
        if isinstance(node, ast.Name):
            return _UNKNOWN if node.id in self.locals else self.outer.find(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            return _UNKNOWN if owner is _UNKNOWN else _attribute(owner, node.attr)
        return _UNKNOWN


# -- functions inside ----------------------------------------------------------------


class _Inner:
    """A function inside of which all is known: it has one name, means one thing, and is only called.

    Attributes:
        node: Where it is made.
        calls: How many calls of it there are in the source.
    """

    def __init__(self, node: ast.FunctionDef | ast.Lambda, calls: int) -> None:
        self.node = node
        self.calls = calls
        self._seen: set[int] = set()
        arguments = node.args
        self._places = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        late = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        optional = {one.arg for one, default in late if default is not None}
        optional |= set(self._places[len(self._places) - len(arguments.defaults) :])
        bound = {
            one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
        }
        outer = {name for one in ast.walk(node) if isinstance(one, ast.Nonlocal) for name in one.names}
        # A parameter with a default is one that may be left out: what looks at it may ask whether it was.
        self._given = set(_parameters(arguments)) - optional - (bound & outer)

    def called(self, call: ast.Call, to_come: Callable[[ast.expr], bool]) -> None:
        """Note a call on the walk."""
        self._seen.add(id(call))
        if any(isinstance(one, ast.Starred) for one in call.args):
            self._given.clear()
            return
        values = dict(zip(self._places, call.args, strict=False))
        values |= {one.arg: one.value for one in call.keywords if one.arg is not None}
        self._given &= {name for name, value in values.items() if to_come(value)}

    def always_given(self) -> set[str]:
        """The parameters that every call gives a reference."""
        return self._given if len(self._seen) == self.calls else set()


def _inner(tree: ast.FunctionDef) -> dict[str, _Inner]:
    """By name: the functions inside that are bound once and are used in no way but by calls of them."""
    found: dict[str, ast.FunctionDef | ast.Lambda] = {}
    called: list[str] = []
    used: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(decorator_list=[]) if node is not tree:
                found[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda() as made):
                found[name] = made
            case ast.Call(func=ast.Name(id=name)):
                called.append(name)
            case ast.Name(ctx=ast.Load()):
                used.append(node.id)
            case _:
                pass
    names = list(_bound(tree))
    return {
        name: _Inner(node, called.count(name))
        for name, node in found.items()
        if names.count(name) == 1 and called.count(name) == used.count(name) > 0
    }


def _parameters(arguments: ast.arguments) -> list[str]:
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


# -- looking things up --------------------------------------------------------------


class _Names:
    """Names as a function sees them: of the functions around it, of its module, built in."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.scopes: list[dict[str, Any]] = [{}]
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
            try:
                self.scopes[0][name] = cell.cell_contents
            except ValueError:  # not bound yet
                self.scopes[0][name] = _UNKNOWN
        builtins = fn.__globals__.get("__builtins__", {})
        self.scopes += [fn.__globals__, builtins if isinstance(builtins, dict) else vars(builtins)]

    def find(self, name: str) -> Any:
        """The object of that name, or `_UNKNOWN`."""
        return next((scope[name] for scope in self.scopes if name in scope), _UNKNOWN)


def _attribute(owner: Any, name: str) -> Any:
    """An attribute, without running anybody's code but a module's or a class's own lookup."""
    if isinstance(owner, ModuleType | type):
        return getattr(owner, name, _UNKNOWN)
    found = inspect.getattr_static(owner, name, _UNKNOWN)
    if isinstance(found, property):
        return _UNKNOWN
    return getattr(owner, name, _UNKNOWN) if callable(found) else found


def _calls_nodes(fn: FunctionType, makes_node: Callable[[object], bool], depth: int) -> bool:
    """Whether a plain function uses actions or sagas, itself or through functions that it calls."""
    if f"{fn.__module__}.".startswith("compensate.authoring."):
        return makes_node(fn)
    names = _Names(fn)
    for code in _codes(fn.__code__):
        for name in (*code.co_names, *code.co_freevars):
            found = names.find(name)
            if found is _UNKNOWN:
                continue
            inside = isinstance(found, ModuleType)
            parts: list[Any] = [getattr(found, one, None) for one in code.co_names] if inside else [found]
            if any(part is not None and makes_node(part) for part in parts):
                return True
            deeper = [part for part in parts if isinstance(part, FunctionType) and part is not fn]
            if depth and any(_calls_nodes(part, makes_node, depth - 1) for part in deeper):
                return True
    return False


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _walk(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All nodes below, but for the bodies of functions and classes."""
    for node in nodes:
        if isinstance(node, _SCOPES):
            continue
        yield node
        yield from _walk(list(ast.iter_child_nodes(node)))


def _functions(tree: ast.FunctionDef) -> list[ast.FunctionDef]:
    """The functions that stand inside."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node is not tree]


def _bound(tree: ast.FunctionDef) -> Iterator[str]:
    """Names that the function binds anywhere, so that they mean nothing of its module."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if node is not tree:
                yield node.name
            case ast.alias():
                yield (node.asname or node.name).partition(".")[0]
            case ast.arg():
                yield node.arg
            case ast.MatchAs() | ast.MatchStar() | ast.ExceptHandler() if node.name is not None:
                yield node.name
            case _:
                pass


def _joined(ends: Sequence[Env]) -> Env:
    """What each name stands for on all of several ways."""
    names = {name for end in ends for name in end}
    joined: Env = {}
    for name in names:
        kinds: list[Kind] = [end.get(name, "plain") for end in ends]
        joined[name] = kinds[0] if kinds.count(kinds[0]) == len(kinds) else "plain"
    return joined
