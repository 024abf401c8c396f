"""A trip is booked: the card is charged, then hotel, flight and car at once. Says more: the README beside this file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from compensate import Coordinator, Ctx, Inject, NoEffect, RolledBack, Stuck, action, event_line, render, saga

KINDS = ("hotel", "flight", "car")


@dataclass(frozen=True)
class Trip:
    """What is asked for."""

    traveller: str
    destination: str
    cents: int


@dataclass(frozen=True)
class Booking:
    kind: str
    number: str


@dataclass
class Agency:
    """The other side, which knows what a key is: asked twice under one key, it does the thing once.

    Attributes:
        sold_out: Of what there is nothing left.
        charged: Cents by key.
        booked: Bookings by key.
    """

    sold_out: frozenset[str] = frozenset()
    charged: dict[str, int] = field(default_factory=dict[str, int])
    booked: dict[str, Booking] = field(default_factory=dict[str, Booking])

    async def book(self, key: str, kind: str, trip: Trip) -> Booking:
        await asyncio.sleep(0.01 * (1 + KINDS.index(kind)))  # a network lies between
        if kind in self.sold_out:
            raise NoEffect(f"no {kind} is left in {trip.destination}")
        return self.booked.setdefault(key, Booking(kind, f"{kind[0].upper()}-{100 + KINDS.index(kind)}"))

    def cancel(self, key: str) -> None:
        self.booked.pop(key, None)


@action
async def charge_card(ctx: Ctx[Agency], trip: Trip) -> int:
    return ctx.deps.charged.setdefault(ctx.key, trip.cents)


@charge_card.undo
async def refund_card(ctx: Ctx[Agency], _cents: int) -> None:
    ctx.deps.charged.pop(ctx.do_key, None)


@action
async def book_hotel(ctx: Ctx[Agency], trip: Trip) -> Booking:
    return await ctx.deps.book(ctx.key, "hotel", trip)


@book_hotel.undo
async def cancel_hotel(ctx: Ctx[Agency], _booking: Booking) -> None:
    ctx.deps.cancel(ctx.do_key)


@action
async def book_flight(ctx: Ctx[Agency], trip: Trip) -> Booking:
    return await ctx.deps.book(ctx.key, "flight", trip)


@book_flight.undo
async def cancel_flight(ctx: Ctx[Agency], _booking: Booking) -> None:
    ctx.deps.cancel(ctx.do_key)


@action
async def book_car(ctx: Ctx[Agency], trip: Trip) -> Booking:
    return await ctx.deps.book(ctx.key, "car", trip)


@book_car.undo
async def cancel_car(ctx: Ctx[Agency], _booking: Booking) -> None:
    ctx.deps.cancel(ctx.do_key)


@action
async def confirm(ctx: Ctx[Agency], hotel: Booking, flight: Booking, car: Booking) -> str:
    trip = ctx.params(dict[str, Trip])["trip"]  # not given, but there: every node can read the saga's params
    numbers = ", ".join(booking.number for booking in (hotel, flight, car))
    return f"{trip.traveller} goes to {trip.destination}: {numbers}"


@saga
def book_trip(trip: Trip) -> str:
    paid = charge_card(trip)
    hotel = book_hotel.after(paid)(trip)
    flight = book_flight.after(paid)(trip)
    car = book_car.after(paid)(trip)
    return confirm(hotel, flight, car)


async def travel(agency: Agency, inject: dict[str, Inject]) -> int:
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    code = 0
    async with Coordinator("memory://", deps=agency, sagas=[book_trip], inject=inject) as c:
        run = await c.start(book_trip.with_id("trip-1"), Trip("ann", "Oslo", 75_000))
        async for event in run.events():
            print(event_line(event, time=False), flush=True)
        print()
        try:
            print(await run.result())
        except RolledBack as error:
            print(error)
            code = 3
        except Stuck as error:
            print(error)
            code = 4
        saga_now = await c.get("trip-1")
    print(f"charged: {sum(agency.charged.values())} cents")
    print(f"booked: {', '.join(booking.number for booking in agency.booked.values()) or 'nothing'}\n")
    print(render.text(render.snapshot(saga_now.fold, saga_now.events), ascii=ascii_only), end="")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.trip", description=__doc__)
    parser.add_argument("--sold-out", choices=KINDS, action="append", default=[], help="there is none left")
    parser.add_argument(
        "--inject-undo-error",
        metavar="NODE",
        action="append",
        default=[],
        help="a drill: let the first attempt of this node's undo fail",
    )
    parser.add_argument(
        "--inject-repeat", metavar="NODE", action="append", default=[], help="a drill: run this action twice"
    )
    options = parser.parse_args(argv)
    inject = {name: Inject(repeat=2) for name in options.inject_repeat}
    inject |= {name: Inject(fail_undo=1) for name in options.inject_undo_error}
    return asyncio.run(travel(Agency(frozenset(options.sold_out)), inject))


if __name__ == "__main__":
    sys.exit(main())
