"""What must be accepted by mypy strict and pyright strict, as a user would write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, assert_type

from compensate.authoring import (
    Action,
    ActionRegistry,
    Ctx,
    Saga,
    action,
    action_constant,
    constant,
    fan_out,
    inject_error_action,
    no_op_undo,
    saga,
)
from compensate.core.dag import Dag
from compensate.core.policy import Retry
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.executor import SagaExecutor
from compensate.runtime.inject import Inject


class Client:
    def get(self, url: str) -> str:
        return url


@dataclass
class Deps:
    http: Client


@dataclass
class Line:
    sku: str
    count: int


@dataclass
class Order:
    id: str
    card: str
    lines: list[Line] = field(default_factory=list[Line])


@dataclass
class Quote:
    cents: int
    lines: list[Line]
    large: bool


@dataclass
class Hold:
    id: str


@dataclass
class Auth:
    id: str


@action
def quote(order: Order) -> Quote:
    return Quote(len(order.lines), order.lines, large=False)


@action(retry=Retry(5), timeout=10)
async def reserve(ctx: Ctx[Deps], line: Line, *, warehouse: str) -> Hold:
    return Hold(ctx.deps.http.get(f"{warehouse}/{line.sku}/{ctx.key}"))


@reserve.undo
async def release(ctx: Ctx[Deps], hold: Hold) -> None:
    ctx.deps.http.get(hold.id)


@action(retry=Retry(3), timeout=30)
async def authorize(ctx: Ctx[Deps], cents: int, card: str, note: str = "") -> Auth:
    return Auth(f"{ctx.saga_id}{cents}{card}{note}")


@authorize.undo(unknown=True, retry=Retry(10), timeout=5)
async def void(ctx: Ctx[Deps], auth: Auth | None) -> None:
    ctx.deps.http.get(ctx.do_key if auth is None else auth.id)
    assert_type(ctx.lookup("quote", Quote), Quote)
    assert_type(ctx.params(Order), Order)


@action
async def notify(text: str) -> None: ...


@notify.undo(unknown=True)
def forget(nothing: None) -> None: ...


@action
def note(order: Order) -> str:
    return order.id


note.undo(no_op_undo)


@action(label="hand over")
async def ship(holds: list[Hold], auth: Auth) -> str:
    return auth.id + "".join(hold.id for hold in holds)


@action
def insure(number: str, policy: str | None) -> str:
    return f"{number}{policy}"


@action
def buy_policy(cents: int) -> str:
    return f"policy over {cents}"


@action
async def record(what: object, where: str) -> None: ...


@action(name="record-now")
def record_now(what: object) -> dict[str, object]:
    return {"what": what}


@saga
def audit(order: Order) -> dict[str, object]:
    record(order, "here")
    return record_now(order.id)


@saga
def payment(cents: int, card: str) -> Auth:
    return authorize(cents, card)


@saga(name="fulfil-order", deadline=3600)
def fulfil(order: Order, *, warehouse: str = "west") -> str:
    q = quote(order)
    holds = fan_out(reserve, q.lines, warehouse=warehouse)
    assert_type(holds, list[Hold])
    auth = authorize(q.cents, card=order.card)
    first = reserve(q.lines[0], warehouse="east")
    number = ship.options(name="send", retry=Retry(3)).after(auth, first)(holds, auth)
    policy = buy_policy.when(q.large)(q.cents)
    assert_type(policy, str | None)
    ship([first, *[reserve.options(name="more")(q.lines[1], warehouse="east")]], payment(1, "x"))
    payment.options(name="second").after("quote")(2, card=order.card)
    more = fan_out(reserve.options(name="again").after(number), order.lines, warehouse=constant("north"))
    ship(more, auth)
    paid = fan_out(payment.options(name="parts").after(more), [1, q.cents], card=order.card)
    assert_type(paid, list[Auth])
    assert_type(fan_out(payment, [2], "card"), list[Auth])
    return insure(number, policy)


async def run_alone(client: Client, graph: Dag) -> None:
    traced = SagaExecutor(payment, deps=Deps(client))
    assert_type(await traced.execute(1, card="x"), Auth)
    built = SagaExecutor(graph, registry, saga_id="y")
    assert_type(built, SagaExecutor[Any])
    assert_type(await built.execute(), Any)


async def shown(coordinator: Coordinator, order: Order) -> None:
    kept: list[object] = [await coordinator.run(fulfil, order)]
    kept.append(await coordinator.run(payment.with_id("p-1"), 1, card="x"))
    wider: Saga[[int, str], object] = payment
    repr([kept, wider, str(await coordinator.run(payment.options(deadline=5), 1, "x"))])


async def run(client: Client) -> None:
    async with Coordinator("memory://", deps=Deps(client), sagas=[fulfil]) as coordinator:
        order = Order("1", "2")
        assert_type(await coordinator.run(fulfil.with_id(order.id), order, warehouse="east"), str)
        started = await coordinator.start(payment, 1, card="x")
        faults = {"authorize": Inject(fail="before")}
        assert_type(await coordinator.run(payment, 1, card="x", inject=faults), Auth)
        assert_type(await (await coordinator.start(payment, 1, card="x", inject=faults)).result(), Auth)
        assert_type(await started.result(), Auth)


numbered: Saga[..., str] = fulfil.with_id("order-1").options(deadline=60)
data: bytes = fulfil.encode_params(Order("1", "2"), warehouse="east")
five: Action[[], int] = action_constant(5)
broken: Action[[], None] = inject_error_action()
registry = ActionRegistry()
registry.register(quote)
registry.register_saga(fulfil)
