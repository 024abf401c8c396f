"""Mistakes on purpose, each on a marked line, which mypy strict and pyright strict must both reject."""

from __future__ import annotations

from compensate.authoring import Action, Ctx, Saga, action, constant, fan_out, saga
from compensate.core.policy import Retry
from compensate.runtime.coordinator import Coordinator
from tests.typing.clean import (
    Auth,
    Deps,
    Hold,
    Line,
    Order,
    Quote,
    authorize,
    buy_policy,
    fulfil,
    insure,
    payment,
)
from tests.typing.clean import quote, reserve, ship


@action
def confirm(auth: Auth) -> bool:
    return bool(auth.id)


@confirm.undo  # mistake: the undo takes another type than the output
def unconfirm(sure: Auth) -> None: ...


@action
async def book(ctx: Ctx[Deps], line: Line) -> Hold:
    return Hold(ctx.deps.database)  # mistake: the deps have no such resource


@book.undo  # mistake: with a Ctx, too
async def unbook(ctx: Ctx[Deps], hold: Quote) -> None: ...


@action
async def charge(cents: int) -> Auth:
    return Auth(str(cents))


@charge.undo(unknown=True)  # mistake: it may be given None
async def refund(ctx: Ctx[Deps], auth: Auth) -> None: ...


@action
async def hire(cents: int) -> Auth:
    return Auth(str(cents))


@hire.undo(unknown=True)  # mistake: another type, with or without None
def fire(hold: Hold | None) -> None: ...


@action
def pack(hold: Hold) -> str:
    return hold.id


@pack.undo()  # mistake: an undo takes one value
def unpack(text: str, other: str) -> None: ...


@action(retry=3)  # mistake: a number is no Retry
def weigh(hold: Hold) -> int:
    return len(hold.id)


@saga
def calls(order: Order) -> Quote:
    q = quote(order)
    authorize(order.card, q.cents)  # mistake: swapped arguments
    authorize(q.cents)  # mistake: a missing argument
    authorize(q.cents, order.card, "note", "more")  # mistake: one argument too many
    authorize(q.cents, card=order.card, colour="red")  # mistake: an unknown keyword
    quote("order")  # mistake: a plain value of the wrong type
    ship([reserve(q.lines[0], warehouse="west")], q)  # mistake: the result of the wrong node
    reserve(q.lines[0], "west")  # mistake: a keyword-only argument by place
    reserve(q.lines, warehouse="west")  # mistake: the list for the item
    authorize(q.total, order.card)  # mistake: a field that the output does not have
    ship(reserve(q.lines[0], warehouse="west"), authorize(1, "card"))  # mistake: one hold for a list of them
    return q


@saga
def settings(order: Order) -> str:
    q = quote(order)
    holds = fan_out(reserve, q.lines, warehouse="west")
    fan_out(reserve, [q.cents], warehouse="west")  # mistake: items of the wrong type
    fan_out(reserve, q.lines, warehouse=5)  # mistake: a fixed argument of the wrong type
    fan_out(reserve, q.lines)  # mistake: a fixed argument is missing
    fan_out(payment, q.lines, card="c")  # mistake: items that the saga does not take
    fan_out(payment, [q.cents], card=5)  # mistake: a fixed param of the wrong type
    fan_out(payment, [q.cents])  # mistake: a fixed param is missing
    ship(fan_out(payment, [1], card="c"), authorize(1, "card"))  # mistake: outputs of another saga
    ship(holds[0], authorize(q.cents, order.card))  # mistake: an item for the list
    ship.options(name=5)(holds, authorize(1, "card"))  # mistake: a name that is no text
    ship.options(attempts=5)(holds, authorize(1, "card"))  # mistake: an option that there is not
    ship.options(retry=Retry(2)).after(q)(authorize(1, "card"), holds)  # mistake: swapped after settings
    maybe = authorize.when(q.large)(q.cents, order.card)
    ship(holds, maybe)  # mistake: what may be skipped, where it is needed
    buy_policy.when(q.cents)(q.cents)  # mistake: a flag that is no bool
    payment(order.card, q.cents)  # mistake: swapped arguments of a subsaga
    insure(payment(q.cents, order.card), None)  # mistake: the output of a subsaga, of the wrong type
    authorize(constant("5"), order.card)  # mistake: a constant of the wrong type
    return holds  # mistake: the saga returns something else


async def run(coordinator: Coordinator, order: Order) -> None:
    await coordinator.run(fulfil, 5)  # mistake: run with params of the wrong type
    await coordinator.run(fulfil)  # mistake: run without params
    await coordinator.run(payment, order.card, 5)  # mistake: run with swapped params
    await coordinator.start(payment, 5, colour="red")  # mistake: start with an unknown param
    number: int = await coordinator.run(fulfil, order)  # mistake: the result taken for another type
    await coordinator.run(quote, order)  # mistake: an action is no saga
    await coordinator.run(quote, order, inject={})  # mistake: an action is no saga, with faults either
    await coordinator.start(payment, 1, "x", inject={"quote": "fail"})  # mistake: a fault that is none


fulfil.encode_params("order")  # mistake: params of the wrong type
fulfil.encode_params()  # mistake: params are missing
fulfil.with_id("order-1").encode_params(Order("1", "2"), 5)  # mistake: one param too many
fulfil.with_id(5)  # mistake: an id that is no text
narrow: Saga[[int, str], str] = payment  # mistake: the output of a saga is no narrower type
wrong: Action[[Line], Quote] = quote  # mistake: an action of another signature
