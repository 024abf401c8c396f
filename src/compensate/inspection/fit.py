"""The fit check: whether today's code can carry a stored saga to its end, in every way that it may still take.

A saga runs the dag that is stored with it, by actions that are found by name. Before a claimed saga runs anything,
all of it that may still run is held against the code, here and nowhere else: the host that has claimed it,
`Snapshot.misfit` and `compensate check` give the same answer for the same reasons.

Forward, that are the nodes that have not completed, and the undos of those that have or may have, unless a pivot has
made a rollback impossible. Backward, it is what has to be undone, and the actions that are run again to learn an
output. What a saga has put behind itself is not looked at: its code may be gone.

A value that is recorded has to decode as what its reader takes today. Where a value is still to come, only what is
sure counts: the annotated type of its source must not clearly misfit that of its reader, as in a saga definition. So
code that has not changed always fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from compensate.authoring.signatures import misfit as clash
from compensate.authoring.steps import ABSENT, clash_of_parts, type_at
from compensate.codec import TypeCodec, type_codec
from compensate.codec import records as r
from compensate.codec.values import BRING_BACK, type_name
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import (
    PARAMS,
    ActionNode,
    ConstantNode,
    Expr,
    Fields,
    Items,
    Path,
    Ref,
    SubsagaNode,
    Value,
    action_nodes,
    each_of,
)
from compensate.core.log import Fold
from compensate.core.plan import ACTION, BEGIN, CONSTANT, END, FAN_END, Scope
from compensate.errors import ActionNotFound, CompensateError, DefinitionError
from compensate.inspection.bindings import Bindings, Bound, Input
from compensate.inspection.values import Values


class Misfit(msgspec.Struct, frozen=True):
    """Why today's code does not fit a stored saga.

    Attributes:
        node: Path of the first node that it does not fit.
        reason: What is wrong there.
        advice: What to do about it.
    """

    node: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"node {self.node!r}: {self.reason}"


def misfit(fold: Fold, bindings: Bindings) -> Misfit | None:
    """Why the code cannot run all of a saga that may still run; `None` if it can. Changes nothing.

    Args:
        fold: The saga as it stands. Of a completed one, what its rollback would need is looked at.
        bindings: Of its plan.
    """
    return next(_Check(fold, bindings).misfits(), None)


def require(bindings: Bindings) -> None:
    """Refuse to start a dag of which a node could not be run, or not be undone, by the actions at hand.

    Raises:
        ActionNotFound: An action is unknown, takes other parameters than the node gives it, or its undo is of another
            kind than the dag says. The message names the dag and the node.
    """
    if bindings.sound:
        return
    dag = bindings.plan.dag
    for path, spec in action_nodes(dag):
        needs = bindings.needs(spec)
        reason = needs.lack or needs.undo_lack or needs.none_lack
        if reason:
            raise ActionNotFound(f"dag {dag.name}: node {path!r}: {reason}; nothing was stored")
    bindings.sound = True


_RUN_FORMER: Final = (
    "run code that has it, under the name and with the parameters and undo of the stored dag, until these sagas have "
    "ended"
)
_READ: Final = (
    "let today's types read what is stored (a new field needs a default, a removed one must stay readable), or run the "
    "former code until these sagas have ended"
)


class _Check:
    """One saga, held against the code."""

    def __init__(self, fold: Fold, bindings: Bindings) -> None:
        self.fold = fold
        self.plan = fold.plan
        self.bindings = bindings
        self.values = Values(fold)
        self._seen: set[tuple[int, int]] = set()
        self._cut: dict[int, bool] = {}
        self._stand_ins: dict[int, int] = {}
        """By end bracket of a fan-out of sagas whose items are not known yet: the one that stands for its elements."""

    def misfits(self) -> Iterator[Misfit]:
        """All of them, in the order of the plan."""
        fold = self.fold
        if fold.status == s.ROLLED_BACK:
            return
        waiting = {i for i, state in enumerate(fold.state) if state in _MAY_WAIT and fold.choices(i)}
        if fold.status == s.COMPLETED or fold.rollback is not None:
            if fold.rollback is not None or not fold.pivot_passed:
                yield from self._backward(waiting)
        elif waiting and fold.may_turn_back():
            yield from self._backward(set())  # a node was given up: it turns back before anything else
        else:
            yield from self._forward(waiting)

    # -- which way it may go -----------------------------------------------

    def _forward(self, waiting: set[int]) -> Iterator[Misfit]:
        """`waiting`: nodes that an operator has to decide about first."""
        self._look_ahead()
        fold, plan = self.fold, self.plan
        undone = not fold.pivot_passed
        beyond = self._beyond_a_pivot() if undone else set[int]()
        for i, kind in enumerate(plan.kinds):
            state = fold.state[i]
            if kind == ACTION:
                if state in _STILL_TO_RUN:
                    if i in waiting or (state == s.PENDING and self._passed_over(i)):
                        continue
                    yield from self._when(i)
                    yield from self._action(i)
                    if undone and i not in beyond:
                        yield from self._undo(i, without_output=True)
                elif state == s.COMPLETED and undone:
                    # Its output is known; but who changed what the undo takes changed it for what still runs, too.
                    yield from self._undo(i, without_output=True)
            elif kind == FAN_END:
                if state == s.PENDING and not self._passed_over(i):
                    yield from self._when(plan.partner[i])
                    yield from self._fan(i, undone and i not in beyond)
            elif kind == BEGIN and state == s.PENDING and not self._passed_over(i):
                yield from self._when(i)

    def _backward(self, waiting: set[int]) -> Iterator[Misfit]:
        """`waiting`: nodes that an operator has to decide about; nothing of them runs before."""
        fold, plan = self.fold, self.plan
        for i, kind in enumerate(plan.kinds):
            if kind != ACTION or i in waiting:
                continue
            state, undo = fold.state[i], plan.action(i).undo
            if undo == "none":
                continue
            if state in (s.COMPLETED, s.UNDOING, s.UNDO_FAILED):
                yield from self._undo(i, without_output=fold.output[i] is None)
            elif state in (s.RUNNING, s.IN_DOUBT):
                if undo == "output":
                    yield from self._action(i)  # run again to learn its output
                yield from self._undo(i, without_output=True)
            elif state == s.FAILED and undo == "unknown" and not cast(e.Failed, fold.errors[i]).clean:
                yield from self._undo(i, without_output=True)

    def _look_ahead(self) -> None:
        """Lay out the fan-outs of sagas that are still to come, on a copy, to look at their nodes as at others.

        Where the items are recorded there is a subsaga for each. Else one stands for all: what is said of its item is
        said of each.
        """
        open_ = self._unexpanded(0)
        if not open_:
            return
        fold = self.fold = self.fold.sketch()
        plan = self.plan = fold.plan
        self.values = Values(fold)
        while open_:
            end = open_.pop()
            if self._passed_over(end):
                continue
            known = len(plan.names)
            try:
                count = len(self.values.items(end))
            except (CompensateError, LookupError):
                self._stand_ins[end] = plan.stand_in(end)
            else:
                plan.expand(end, count)
            fold.take_up()
            open_ += self._unexpanded(known)

    def _unexpanded(self, since: int) -> list[int]:
        """End brackets of the fan-outs of sagas, from index `since` on, that have no elements yet; the last first."""
        plan, state = self.plan, self.fold.state
        return [
            i
            for i in range(len(plan.names) - 1, since - 1, -1)
            if plan.kinds[i] == FAN_END
            and isinstance(plan.specs[i], SubsagaNode)
            and state[plan.partner[i]] == s.PENDING
        ]

    def _beyond_a_pivot(self) -> set[int]:
        """The nodes that start only after a pivot has completed, so that they are never undone."""
        plan = self.plan
        open_ = [pivot for pivot in plan.pivots if not self._may_be_skipped(pivot)]
        beyond: set[int] = set()
        while open_:
            for after in plan.dependants[open_.pop()]:
                if after not in beyond:
                    beyond.add(after)
                    open_.append(after)
        return beyond

    def _may_be_skipped(self, i: int) -> bool:
        return self.fold.state[i] == s.PENDING and any(
            begin in self.plan.asks and self.fold.state[begin] == s.PENDING for begin in self._begins(i)
        )

    def _begins(self, i: int) -> Iterator[int]:
        """The node (of brackets the begin), and the begin bracket of every subsaga and fan-out around it."""
        plan = self.plan
        yield plan.partner[i] if plan.kinds[i] in (END, FAN_END) else i
        scope = plan.scopes[i]
        while scope.parent is not None:
            yield scope.begin
            if plan.fan[scope.end] >= 0:
                yield plan.partner[plan.fan[scope.end]]
            scope = scope.parent

    def _passed_over(self, i: int) -> bool:
        """Whether a node that has not started never will, since it is in a branch that is not taken."""
        return any(self._is_cut(begin) for begin in self._begins(i))

    def _is_cut(self, begin: int) -> bool:
        if begin not in self.plan.asks:
            return False
        cut = self._cut.get(begin)
        if cut is None:
            self._cut[begin] = False
            state = self.fold.state[begin]
            cut = state == s.SKIPPED or (state == s.PENDING and self._flag(begin) is False)
            self._cut[begin] = cut
        return cut

    # -- questions that are still to be asked ------------------------------

    def _flag(self, begin: int) -> object:
        """The recorded value of a `when` that is still to be decided; `_NOT_YET` if there is none."""
        fold, plan = self.fold, self.plan
        spec, scope = plan.specs[begin], plan.scopes[begin]
        if fold.question(begin) != "when" or not isinstance(spec, ActionNode | SubsagaNode):
            return _NOT_YET
        assert spec.when is not None
        if not fold.unblocked(begin) and spec.when.node:
            source = scope.index[spec.when.node]
            if fold.state[source] not in (s.COMPLETED, s.SKIPPED) and plan.kinds[source] != CONSTANT:
                return _NOT_YET
        try:
            return cast(object, r.from_json(self.values.resolve(spec.when, scope)))
        except (CompensateError, LookupError) as error:
            return error if fold.unblocked(begin) else _NOT_YET

    def _when(self, begin: int) -> Iterator[Misfit]:
        """The `when` of a node that is still to be decided.

        A recorded flag is read as it is, by no type of today's code. If it is no flag, no other code helps: the saga is
        rolled back, or, behind a pivot, stays parked.
        """
        spec = self.plan.specs[begin]
        if self.fold.question(begin) != "when" or not isinstance(spec, ActionNode | SubsagaNode):
            return
        assert spec.when is not None
        flag = self._flag(begin)
        where = f"its `when`{_source(spec.when)}"
        if flag is _NOT_YET:
            as_it_is = None if self.fold.pivot_passed else _codec(Any)
            reason = self._expr(spec.when, self.plan.scopes[begin], (), bool, as_it_is)
            if reason:
                yield self._misread(begin, f"{where}: {reason}")
        elif not isinstance(flag, bool) and self.fold.pivot_passed:
            yield self._misread(begin, f"{where}: {flag!r} is there; a true or false was expected")

    def _fan(self, end: int, undone: bool) -> Iterator[Misfit]:
        """A fan-out that is still to be done: its items, and each element's action; subsagas are looked at by node."""
        spec = self.plan.specs[end]
        if isinstance(spec, SubsagaNode):
            assert spec.each is not None
            if self.fold.state[self.plan.partner[end]] != s.PENDING:
                return
            reason = self._items(end, spec.each.items, _codec(Any))
            if reason:
                yield self._misread(end, f"its items{_source(spec.each.items)}: {reason}")
            return
        spec = self.plan.action(end)
        needs = self.bindings.needs(spec)
        if needs.lack:
            yield self._lacking(end, needs.lack)
            return
        assert spec.each is not None
        assert needs.action is not None
        yield from self._inputs(end)
        reason = self._items(end, spec.each.items, needs.action.params[spec.each.param])
        if reason:
            yield self._misread(end, f"its items{_source(spec.each.items)}: {reason}")
        if undone:
            yield from self._undo(end, without_output=True)

    def _items(self, end: int, expr: Expr, codec: TypeCodec[Any]) -> str:
        """What is wrong with the items of a fan-out, each of which is read with `codec`."""
        begin, scope = self.plan.partner[end], self.plan.scopes[end]
        if not self.fold.unblocked(begin):
            return self._expr(expr, scope, (), list[codec.type], None)  # type: ignore[name-defined]
        try:
            items = r.split(self.values.resolve(expr, scope))
        except CompensateError as error:  # no list: as of a flag that is none
            return _said(error) if self.fold.pivot_passed else ""
        for position, item in enumerate(items):
            reason = self._data(item, (), codec.type, codec)
            if reason:
                return f"item {position}: {reason}"
        return ""

    # -- nodes -------------------------------------------------------------

    def _action(self, i: int) -> Iterator[Misfit]:
        """Whether the action of node `i` can be called."""
        needs = self.bindings.needs(self.plan.action(i))
        if needs.lack:
            yield self._lacking(i, needs.lack)
        else:
            yield from self._inputs(i)

    def _inputs(self, i: int) -> Iterator[Misfit]:
        """Whether what node `i` is given can be read; elements of a fan-out share all of it but the item."""
        fold, plan = self.fold, self.plan
        bound = self.bindings.of(i, fold)
        scope = plan.scopes[i]
        key = (id(bound.spec), id(scope))
        first = key not in self._seen
        self._seen.add(key)
        for item in (*bound.positional, *bound.keyword):
            if item.expr is None:
                reason = "" if plan.kinds[i] != ACTION else self._recorded(i, bound, item)
            elif not first:
                continue
            elif fold.unblocked(plan.partner.get(i, i)):
                reason = self._recorded(i, bound, item)
            else:
                codec = bound.action.params[item.name]
                reason = self._expr(item.expr, scope, (), codec.type, codec)
            if reason:
                yield self._misread(i, f"its input {item.name!r}{_source(item.expr)}: {reason}")

    def _recorded(self, i: int, bound: Bound, item: Input) -> str:
        try:
            item.decode(self.values.data(item, bound, i))
        except CompensateError as error:
            return _said(error)
        return ""

    def _undo(self, i: int, *, without_output: bool) -> Iterator[Misfit]:
        """Whether node `i` could be undone.

        Args:
            i: Its index.
            without_output: Whether there may be no output then.
        """
        spec = self.plan.action(i)
        if spec.undo == "none":
            return
        needs = self.bindings.needs(spec)
        reason = needs.undo_lack or (needs.none_lack if without_output else "")
        if reason:
            yield self._lacking(i, reason)
            return
        action = needs.action
        assert action is not None
        output = self.fold.output[i]
        if output is not None:
            reason = self._data(output, (), action.output.type, action.output)
            if reason:
                yield self._misread(i, f"its output, which its undo takes: {reason}")
        if action.undo_takes_ctx and self.fold.state[i] != s.PENDING:
            yield from self._inputs(i)  # `ctx.inputs`

    def _lacking(self, i: int, reason: str) -> Misfit:
        return Misfit(self.plan.names[i], reason, _RUN_FORMER)

    def _misread(self, i: int, reason: str) -> Misfit:
        return Misfit(self.plan.names[i], reason, _READ)

    # -- values ------------------------------------------------------------

    def _data(self, data: bytes, path: Path, wanted: Any, codec: TypeCodec[Any] | None) -> str:
        """What is wrong with a recorded value that is to be read as `wanted`."""
        for at, step in enumerate(path):
            if step is EACH:
                try:
                    items = r.split(r.select(data, path[:at]))
                except CompensateError:
                    return ""  # no list: said of the fan-out itself
                return _first(self._data(item, path[at + 1 :], wanted, codec) for item in items)
        try:
            (codec or _codec(wanted)).decode(r.select(data, path))
        except DefinitionError:
            return ""  # a part of a type that cannot stand alone
        except CompensateError as error:
            return _said(error)
        return ""

    def _expr(self, expr: Expr, scope: Scope, path: Path, wanted: Any, codec: TypeCodec[Any] | None) -> str:
        """What is wrong with what `path` leads to in an expression of which not all may be there yet.

        Args:
            expr: What is given.
            scope: Where its names are looked up.
            path: Steps into it.
            wanted: The type that it is to be read as; its `codec`, if that is at hand.
            codec: See there.
        """
        if wanted is Any:
            return ""
        if isinstance(expr, Value):
            return self._data(bytes(expr.json), path, wanted, codec)
        if isinstance(expr, Ref):
            return self._ref(expr, scope, (*expr.path, *path), wanted, codec)
        parts = dict[str | int, Expr](
            enumerate(expr.items) if isinstance(expr, Items) else expr.fields.items()
        )
        if path and path[0] is EACH:
            each = parts.values() if isinstance(expr, Items) else ()
            return _first(self._expr(part, scope, path[1:], wanted, codec) for part in each)
        if path:
            part = parts.get(path[0])
            return "" if part is None else self._expr(part, scope, path[1:], wanted, codec)
        reason = clash_of_parts(
            wanted, len(parts) if isinstance(expr, Items) else [str(name) for name in parts]
        )
        for step, part in parts.items():
            if reason:
                break
            tp = type_at(wanted, (step,))
            if tp is not ABSENT:  # else it is passed over when the whole is read
                reason = self._expr(part, scope, (), tp, None)
        return reason

    def _ref(self, ref: Ref, scope: Scope, path: Path, wanted: Any, codec: TypeCodec[Any] | None) -> str:
        if ref.node != PARAMS:
            return self._output(scope.index[ref.node], path, wanted, codec)
        if scope.parent is None:
            return self._data(self.fold.params, path, wanted, codec)
        if not path and set(scope.inputs) == set(scope.dag.params):
            return self._expr(Fields(scope.inputs), scope.parent, (), wanted, codec)
        given = scope.inputs.get(str(path[0])) if path else None  # an element's item is given by its fan-out
        if given is not None:
            return self._expr(given, scope.parent, path[1:], wanted, codec)
        fan = self.plan.fan[scope.end]
        if path and fan in self._stand_ins:
            each = each_of(self.plan.specs[fan])
            assert each is not None
            return self._expr(each.items, scope.parent, (EACH, *path[1:]), wanted, codec)
        try:
            data = self.values.resolve(Ref(PARAMS, path[:1]), scope)
        except (CompensateError, LookupError):
            return "" if path else self._params(scope, wanted)
        return self._data(data, path[1:], wanted, codec)

    def _params(self, scope: Scope, wanted: Any) -> str:
        """The same of all params of an element at once, which are not all there."""
        names = scope.dag.params
        whole = Fields({name: Ref(PARAMS, (name,)) for name in names})
        return self._expr(whole, scope, (), wanted, None)

    def _output(self, j: int, path: Path, wanted: Any, codec: TypeCodec[Any] | None) -> str:
        """The same of the output of node `j`."""
        fold, plan = self.fold, self.plan
        kind, state = plan.kinds[j], fold.state[j]
        if state == s.SKIPPED or (state == s.PENDING and self._passed_over(j)):
            return "" if path else self._data(r.NULL, (), wanted, codec)
        if kind == CONSTANT:
            return self._data(bytes(cast(ConstantNode, plan.specs[j]).value), path, wanted, codec)
        if kind == ACTION:
            data = fold.output[j]
            if data is not None:
                return self._data(data, path, wanted, codec)
            return self._to_come(plan.action(j), path, wanted)
        if kind == FAN_END:
            return self._outputs(j, path, wanted, codec)
        inner = plan.inner[j]
        if inner.dag.output is None:
            return "" if path else self._data(r.NULL, (), wanted, codec)
        return self._expr(inner.dag.output, inner, path, wanted, codec)

    def _outputs(self, end: int, path: Path, wanted: Any, codec: TypeCodec[Any] | None) -> str:
        """The same of the outputs of a fan-out."""
        plan = self.plan
        if self.fold.state[end] == s.COMPLETED:
            return self._data(self.values.output(end), path, wanted, codec)
        elements: Sequence[int] = plan.elements.get(end, ())
        if end in self._stand_ins:
            elements = (self._stand_ins[end],)
        spec = plan.specs[end]
        reason = ""
        if not path:
            reason = clash(list[Any], wanted)
            parts = [type_at(wanted, (position,)) for position in range(len(elements))]
            reason = reason or _first(
                "" if tp is ABSENT else self._output(j, (), tp, None)
                for j, tp in zip(elements, parts, strict=True)
            )
        elif path[0] is EACH:
            reason = _first(self._output(j, path[1:], wanted, codec) for j in elements)
        elif isinstance(path[0], int):
            if end in self._stand_ins:
                return self._output(self._stand_ins[end], path[1:], wanted, codec)
            if path[0] < len(elements):
                return self._output(elements[path[0]], path[1:], wanted, codec)
        if reason or not isinstance(spec, ActionNode):
            return reason
        return self._to_come(spec, path, wanted, many=True)

    def _to_come(self, spec: ActionNode, path: Path, wanted: Any, *, many: bool = False) -> str:
        """What is clearly wrong with reading an output that is still to come as `wanted`.

        It depends on the definition and the code alone, so it is found out once for all sagas of a definition.
        """
        key = (id(spec), path, wanted, many)
        try:
            known = self.bindings.to_come.get(key)
        except TypeError:  # a type that cannot be hashed
            return self._clash_to_come(spec, path, wanted, many=many)
        if known is None or known[0] is not spec:
            known = self.bindings.to_come[key] = spec, self._clash_to_come(spec, path, wanted, many=many)
        return known[1]

    def _clash_to_come(self, spec: ActionNode, path: Path, wanted: Any, *, many: bool) -> str:
        action = self.bindings.needs(spec).action
        if action is None:
            return ""
        tp: Any = list[action.output.type] if many else action.output.type  # type: ignore[name-defined]
        given = type_at(tp, path)
        if given is ABSENT:
            shown = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)
            return (
                f"action {action.name!r} now returns `{type_name(action.output.type)}`, which has no {shown}"
            )
        reason = clash(given, wanted)
        return f"action {action.name!r} now returns what does not fit there: {reason}" if reason else ""


class _Each(int):
    """The step from a list to each of its items, which are not known one by one; in a type as good as the first."""

    def __str__(self) -> str:
        return "each"


EACH: Final = _Each(0)


def _first(reasons: Iterable[str]) -> str:
    return next(filter(None, reasons), "")


def _said(error: CompensateError) -> str:
    """What an error says, without its advice: a misfit has its own."""
    return str(error).removesuffix(f"; {BRING_BACK}")


def _codec(tp: Any) -> TypeCodec[Any]:
    return type_codec(tp, where="a part of it")


def _source(expr: Expr | None) -> str:
    """Where a value comes from, for messages."""
    if not isinstance(expr, Ref):
        return ""
    if expr.node:
        return f" (from node {expr.node!r})"
    return f" (from param {expr.path[0]!r})" if expr.path else " (from the params)"


_NOT_YET: Final = object()
"""There is no value yet."""

_STILL_TO_RUN: Final = frozenset({s.PENDING, s.RUNNING, s.IN_DOUBT, s.FAILED})
_MAY_WAIT: Final = frozenset({s.FAILED, s.IN_DOUBT, s.UNDO_FAILED})
