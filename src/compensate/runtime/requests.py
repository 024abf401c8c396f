"""Operators' requests: carried out by whoever owns the saga.

They are rows in the store. Its owner looks for them now and then and answers; if no
owner lives, who asks adopts the saga and does it itself.
"""

from __future__ import annotations

import asyncio
from functools import partial

from compensate.errors import CompensateError, Fenced, IllegalRequest, Stopped, StoreError, Unavailable
from compensate.runtime import verbs
from compensate.runtime.adoption import Adoption
from compensate.runtime.execution import Change
from compensate.runtime.host import Host
from compensate.stores.base import Answer, Request, Verb


class Requests:
    """Asks, and answers what is asked of the sagas that run here.

    Args:
        host: What runs here.
        adoption: How to get what runs nowhere.
        poll: Seconds between two looks for an answer, at most.
    """

    def __init__(self, host: Host, adoption: Adoption, poll: float) -> None:
        self._host = host
        self._adoption = adoption
        self._pause = min(poll, 0.1)
        self._open: dict[int, asyncio.Task[None]] = {}

    async def ask(self, saga_id: str, verb: Verb, ask: verbs.Ask) -> None:
        """Have a request carried out, here or where the saga runs.

        Raises:
            IllegalRequest: It makes no sense now. Nothing was changed.
            SagaNotFound: There is no such saga.
            Stopped: The coordinator is shut down, or was before an answer came. A request that was left with
                another owner stands.
        """
        if await self._here(saga_id, verb, ask):
            return
        number = await self._host.setting.store.post(
            saga_id, verb, verbs.encode(ask), self._host.setting.clock.now()
        )
        answer = await self._answered(number, saga_id, verb, ask)
        if answer.error:
            raise IllegalRequest(answer.error)

    async def look(self) -> None:
        """Take up what others have asked of our sagas.

        Raises:
            Unavailable: The store cannot be reached. Trying again is safe.
        """
        for request in await self._host.setting.store.requests(self._host.owner):
            if request.number not in self._open:
                task = self._open[request.number] = asyncio.create_task(self._carry_out(request))
                task.add_done_callback(partial(self._closed, request.number))

    def _closed(self, number: int, task: asyncio.Task[None]) -> None:
        self._open.pop(number, None)

    def under_way(self) -> list[asyncio.Task[None]]:
        """What is being carried out."""
        return list(self._open.values())

    async def _carry_out(self, request: Request) -> None:
        try:
            answer = Answer()
            if not await self._here(request.saga_id, request.verb, verbs.decode(request.data)):
                return  # somebody else's by now, who will see it
        except StoreError as error:
            self._host.setting.report(
                f"saga {request.saga_id}: a request could not be carried out; trying again",
                error,
                saga=request.saga_id,
            )
            return
        except Stopped:
            return  # whoever asks adopts the saga, or asks the next owner
        except CompensateError as error:
            answer = Answer(str(error))
        except Exception as error:  # without an answer whoever asks would wait for ever
            self._host.setting.report(f"saga {request.saga_id}: a request failed", error)
            answer = Answer(
                f"saga {request.saga_id}: its owner could not carry the request out, and has logged why: {error!r}"
            )
        try:
            await self._host.setting.store.answer(request.number, answer)
        except CompensateError as error:
            self._host.setting.report(
                f"saga {request.saga_id}: a request was carried out but not answered",
                error,
                saga=request.saga_id,
            )

    async def _answered(self, number: int, saga_id: str, verb: Verb, ask: verbs.Ask) -> Answer:
        """Wait for the owner's answer to a request; carry it out here if that has died meanwhile."""
        while True:
            await asyncio.sleep(self._pause)
            if self._host.stopping:
                raise Stopped(
                    f"saga {saga_id}: the coordinator was shut down before the saga's owner answered the request "
                    f"({verb}); the request stands, and the owner may still carry it out"
                )
            answer = await self._host.setting.store.answered(number)
            if answer is not None:
                return answer
            try:
                if not await self._here(saga_id, verb, ask):
                    continue
                answer = Answer()
            except IllegalRequest as error:
                # Perhaps because the owner did as it was asked, and the saga has ended before it could say so.
                await asyncio.sleep(self._pause)
                answer = await self._host.setting.store.answered(number) or Answer(str(error))
            await self._host.setting.store.answer(number, answer)
            return answer

    async def _here(self, saga_id: str, verb: Verb, ask: verbs.Ask) -> bool:
        """Carry a request out if the saga is, or can be, ours."""
        change = _change(verb, ask)
        while True:
            execution = self._host.find(saga_id)
            if execution is None:
                done = await self._host.errand(saga_id, self._adoption.one(saga_id, change))
                if done is not False:
                    return done is True
            else:
                try:
                    if await execution.request(change):
                        return True
                except Fenced:
                    pass  # somebody else has adopted it, and is to be asked
                except Unavailable:
                    # Its write was cut off because the saga came back here under a later epoch, and not because the
                    # store failed: the execution that has it now knows what the log holds of the request.
                    if not execution.cut_off or self._host.stopping:
                        raise
            await asyncio.sleep(0)


def _change(verb: Verb, ask: verbs.Ask) -> Change:
    return lambda execution, now: verbs.apply(execution.machine, execution.bindings, verb, ask, now)
