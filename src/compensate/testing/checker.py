"""The checker: reads a saga's log and an outside record of effects, and reports each violated line of the guarantee.

It shares no code with what runs sagas: the dag is flattened again (`shape`), the log is walked by rules written from
the design's words (`log_lines`), effects are compared with it (`effect_lines`), and so are the calls of the store
(`store_lines`). A mistake in the machine is therefore not repeated here.

```python
stored = await store.load(saga_id)
assert not check_stored(stored, recorder)
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from compensate.codec.records import decode_dag
from compensate.core import events as e
from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.stores.base import StoredSaga
from compensate.testing import store_lines
from compensate.testing.effect_lines import Effects
from compensate.testing.log_lines import Walk
from compensate.testing.recorder import Durable, Effect, Recorder, StoreCall
from compensate.testing.violations import Line, Report, Violation

__all__ = ["Line", "Violation", "check", "check_ended", "check_starts", "check_stored"]

_ENDS: Final = (e.SAGA_COMPLETED, e.SAGA_ROLLED_BACK, e.SAGA_STUCK)


def check(
    dag: Dag,
    events: Sequence[Event],
    effects: Iterable[Effect] = (),
    *,
    saga_id: str = "",
    durables: Iterable[Durable] = (),
    calls: Iterable[StoreCall] = (),
    believe_failures: bool = False,
    crashes: int | None = None,
) -> list[Violation]:
    """Every violated line of S1 to S11 that can be seen, with the events and effects concerned.

    Args:
        dag: The saga's.
        events: Its whole log, as stored when everything was over.
        effects: What its user code did; records of other sagas are passed over. Without any, the log alone is checked.
        saga_id: Its id; needed for keys, and for S9, S10 and S11.
        durables: When which events were known to be durable, for S8 and for what runs after an end.
        calls: Calls of its store, for S9, S10 and S11.
        believe_failures: Believe an action that fails plainly that it took no effect, as the library does. By default
            an effect that was recorded counts, whatever its action said of it.
        crashes: At how many deaths in a row all coordinators of the saga gave a node up; `None`: not known.
    """
    report = Report()
    durables, calls = list(durables), list(calls)
    walk = Walk(dag, events, report, crashes)
    walk.run()
    mine = sorted((x for x in effects if saga_id in ("", x.saga)), key=lambda x: x.order)
    Effects(walk, saga_id, mine, durables, calls, report, believe_failures=believe_failures).run()
    if calls:
        store_lines.fencing(saga_id, events, calls, report)
        store_lines.careful(saga_id, events, calls, mine, report)
        store_lines.survival(saga_id, events, calls, report)
    return report.violations


def check_stored(
    stored: StoredSaga, recorder: Recorder, *, believe_failures: bool = False
) -> list[Violation]:
    """`check` of a saga as it is stored, with all that a recorder noted of it."""
    saga_id = stored.record.id
    return check(
        decode_dag(stored.dag),
        stored.events,
        recorder.effects(saga_id),
        saga_id=saga_id,
        durables=recorder.durables(saga_id),
        calls=recorder.calls(saga_id),
        believe_failures=believe_failures,
    )


def check_starts(acknowledged: Mapping[str, bytes], logs: Mapping[str, Sequence[Event]]) -> list[Violation]:
    """S11 over a whole store: every acknowledged start (id and params as JSON) is among the logs."""
    report = Report()
    store_lines.starts(acknowledged, logs, report)
    return report.violations


def check_ended(logs: Mapping[str, Sequence[Event]]) -> list[Violation]:
    """Liveness: every saga's log ends with an end."""
    report = Report()
    for saga_id, events in logs.items():
        if not events or events[-1].type not in _ENDS:
            report.add("liveness", f"{saga_id} has not ended", events[-1:])
    return report.violations
