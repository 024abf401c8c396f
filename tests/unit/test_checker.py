"""The checker reports each violated line, and only that one, over histories made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pytest

from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag, Each, Node, Ref, SubsagaNode, Value
from compensate.core.events import Event
from compensate.core.policy import Retry
from compensate.testing.checker import Violation, check, check_ended, check_starts
from compensate.testing.recorder import OK, Claimed, Durable, Effect, Kind, StoreCall, assert_clean_slate

SAGA = "s"


class History:
    """A log and a record of effects, written down step by step in one order."""

    def __init__(self, dag: Dag, params: bytes = b"{}") -> None:
        self.dag = dag
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        self.durables: list[Durable] = []
        self.calls: list[StoreCall] = []
        self.epoch = 1
        self.actor = "a"
        self._order = 0
        self.log(e.SAGA_CREATED, data=e.Created(params))

    def tick(self) -> int:
        self._order += 1
        return self._order

    def log(
        self, kind: str, node: str = "", attempt: int = 0, data: e.Data = None, *, durable: bool = True
    ) -> History:
        seq = len(self.events) + 1
        self.events.append(Event(seq, self.epoch, float(seq), kind, node, attempt, data))
        if durable:
            self.durables.append(Durable(self.tick(), SAGA, seq, self.actor))
        return self

    def saw(
        self,
        node: str,
        kind: Kind,
        direction: Literal["do", "undo"] = "do",
        value: bytes | None = None,
        attempt: int = 1,
    ) -> History:
        key = f"{SAGA}/{node}/{direction}"
        self.effects.append(Effect(self.tick(), SAGA, node, direction, kind, attempt, key, value, self.actor))
        return self

    # -- what a sound run does ---------------------------------------------

    def start(self, *nodes: str, attempt: int = 1) -> History:
        for node in nodes:
            self.log(e.STARTED, node, attempt)
            self.saw(node, "begin", attempt=attempt).saw(node, "effect", attempt=attempt)
        return self

    def complete(self, *nodes: str, output: bytes = b"1", attempt: int = 1) -> History:
        for node in nodes:
            self.saw(node, "returned", value=output, attempt=attempt)
            self.log(e.COMPLETED, node, attempt, e.Completed(output))
        return self

    def do(self, *nodes: str, output: bytes = b"1") -> History:
        for node in nodes:
            self.start(node).complete(node, output=output)
        return self

    def fail(self, node: str, attempt: int = 1, **how: Any) -> History:
        """An attempt without effect that fails plainly."""
        self.log(e.STARTED, node, attempt).saw(node, "begin", attempt=attempt).saw(
            node, "raised", attempt=attempt
        )
        return self.log(e.FAILED, node, attempt, e.Failed(e.ErrorInfo("E"), **how))

    def doubt(self, node: str, reason: e.Doubt = "unknown", attempt: int = 1) -> History:
        return self.log(e.IN_DOUBT, node, attempt, e.InDoubt(reason))

    def roll_back(self, cause: e.Cause = "failure", node: str = "") -> History:
        return self.log(e.SAGA_ROLLBACK, data=e.Rollback(cause, node))

    def undo_start(self, node: str, value: bytes = b"1", attempt: int = 1) -> History:
        self.log(e.UNDO_STARTED, node, attempt)
        return self.saw(node, "begin", "undo", value, attempt)

    def undo(self, *nodes: str, value: bytes = b"1", attempt: int = 1) -> History:
        for node in nodes:
            self.undo_start(node, value, attempt)
            self.saw(node, "effect", "undo", attempt=attempt).saw(node, "returned", "undo", attempt=attempt)
            self.log(e.UNDONE, node, attempt)
        return self

    def undo_fail(self, node: str, attempt: int = 1) -> History:
        self.undo_start(node, attempt=attempt).saw(node, "raised", "undo", attempt=attempt)
        return self.log(e.UNDO_FAILED, node, attempt, e.UndoFailed(e.ErrorInfo("E")))

    def stuck(self, *nodes: str, parked: str = "") -> History:
        named = tuple(e.StuckNode(node, "why", ("retry", "skip")) for node in nodes)
        return self.log(e.SAGA_STUCK, data=e.SagaStuck(named, parked))

    def end(self, kind: str) -> History:
        return self.log(kind)

    # -- the store ---------------------------------------------------------

    def append(self, events: Sequence[Event], outcome: str = OK, epoch: int | None = None) -> History:
        order = self.tick()
        epoch = self.epoch if epoch is None else epoch
        self.calls.append(
            StoreCall(order, "append", SAGA, self.actor, epoch, tuple(events), outcome, self.tick())
        )
        return self

    def load(self) -> History:
        order = self.tick()
        self.calls.append(StoreCall(order, "load", SAGA, self.actor, outcome=OK, done=self.tick()))
        return self

    def adopt(self, epoch: int, actor: str, last_seq: int | None = None) -> History:
        order = self.tick()
        last_seq = len(self.events) if last_seq is None else last_seq
        claimed = (Claimed(SAGA, epoch, last_seq),)
        self.calls.append(StoreCall(order, "claim", "", actor, outcome=OK, done=self.tick(), claimed=claimed))
        self.epoch, self.actor = epoch, actor
        return self

    # -- the verdict -------------------------------------------------------

    def check(self, **how: Any) -> list[Violation]:
        return check(
            self.dag, self.events, self.effects, saga_id=SAGA, durables=self.durables, calls=self.calls, **how
        )

    def lines(self, **how: Any) -> list[str]:
        return sorted({violation.line for violation in self.check(**how)})


def node(name: str, *after: str, undo: str = "output", **more: Any) -> ActionNode:
    return ActionNode(name, "act", after=after, undo=undo, **more)  # type: ignore[arg-type]


def dag(*nodes: Node, **more: Any) -> Dag:
    return Dag("d", nodes, **more)


CHAIN = dag(node("a"), node("b", "a"), node("c", "b"))
PAIR = dag(node("a"), node("b", "a"))


def chain() -> History:
    return History(CHAIN)


def failed_chain() -> History:
    """a and b are done, c failed, rollback began."""
    return chain().do("a", "b").fail("c").roll_back(node="c")


# -- clean histories -----------------------------------------------------------


def test_a_saga_that_completes_is_clean() -> None:
    assert chain().do("a", "b", "c").end(e.SAGA_COMPLETED).check() == []


def test_a_saga_that_is_rolled_back_in_order_is_clean() -> None:
    assert failed_chain().undo("b", "a").end(e.SAGA_ROLLED_BACK).check() == []


def test_a_rollback_of_a_completed_saga_is_clean() -> None:
    history = chain().do("a", "b", "c").end(e.SAGA_COMPLETED).roll_back("request").undo("c", "b", "a")
    assert history.end(e.SAGA_ROLLED_BACK).check() == []


def test_a_node_in_doubt_that_is_run_again_to_learn_its_output_is_clean() -> None:
    history = History(PAIR).do("a").start("b").doubt("b").roll_back(node="b")
    history.start("b", attempt=2).complete("b", attempt=2).undo("b", "a")
    assert history.end(e.SAGA_ROLLED_BACK).check() == []


def test_a_node_in_doubt_is_undone_with_none_where_its_undo_takes_it() -> None:
    history = (
        History(dag(node("a"), node("b", "a", undo="unknown"))).do("a").start("b").doubt("b").roll_back()
    )
    assert history.undo("b", value=b"null").undo("a").end(e.SAGA_ROLLED_BACK).check() == []


def test_a_node_that_said_no_effect_needs_no_undo() -> None:
    history = History(dag(node("b", undo="unknown"))).fail("b", clean=True).roll_back()
    assert history.end(e.SAGA_ROLLED_BACK).check() == []


@pytest.mark.parametrize("verb", [e.SKIPPED, e.RESOLVED])
def test_an_operators_decision_stands_in_the_place_of_an_undo(verb: str) -> None:
    history = failed_chain().undo_fail("b").stuck("b").log(verb, "b", data=e.Decided("eve", "seen to"))
    assert history.undo("a").end(e.SAGA_ROLLED_BACK).check() == []


def test_an_undo_that_an_operator_has_retried_is_clean() -> None:
    history = failed_chain().undo_fail("b").stuck("b").log(e.RETRIED, "b", data=e.Decided("eve", "try"))
    assert history.undo("b", attempt=2).undo("a").end(e.SAGA_ROLLED_BACK).check() == []


def test_an_output_that_an_operator_supplied_is_what_the_undo_gets() -> None:
    history = History(PAIR).do("a").start("b").doubt("b").roll_back(node="b").stuck("b")
    history.log(e.SUPPLIED, "b", data=e.Supplied(b"7", "eve", "asked the bank"))
    assert history.undo("b", value=b"7").undo("a").end(e.SAGA_ROLLED_BACK).check() == []


def test_a_parked_saga_that_goes_on_is_clean() -> None:
    history = chain().do("a").stuck(parked="action act is unknown").log(e.SAGA_UNPARKED)
    assert history.do("b", "c").end(e.SAGA_COMPLETED).check() == []


def test_an_adopted_saga_is_clean() -> None:
    history = chain().do("a").start("b").adopt(2, "b").doubt("b", "crash")
    history.start("b").complete("b").do("c")
    assert history.end(e.SAGA_COMPLETED).check() == []


FAN = dag(
    node("many"),
    node("x", each=Each("item", Ref("many"))),
    node("sum", inputs={"all": Ref("x")}),
)


def fan() -> History:
    return History(FAN).do("many", output=b"[4,5]").log(e.EXPANDED, "x", data=e.Expanded(2))


def test_a_fan_out_is_clean_and_each_element_gets_its_item() -> None:
    history = fan().do("x[0]", output=b"40").do("x[1]", output=b"50")
    history.log(e.STARTED, "sum", 1).saw("sum", "begin", value=b'{"all":[40,50]}').saw("sum", "effect")
    history.complete("sum").end(e.SAGA_COMPLETED)
    assert history.check() == []


SUBSAGA = dag(
    node("a"),
    SubsagaNode(
        "sub",
        Dag("inner", (node("p", inputs={"v": Ref("", ("n",))}), node("q", "p")), ("n",), Ref("q")),
        {"n": Ref("a", ("k",))},
    ),
    node("z", inputs={"v": Ref("sub")}),
)


def subsaga() -> History:
    history = History(SUBSAGA).do("a", output=b'{"k":3}').log(e.STARTED, "sub/p", 1)
    return history.saw("sub/p", "begin", value=b'{"v":3}').saw("sub/p", "effect").complete("sub/p")


def test_a_subsaga_is_clean_forward_and_back() -> None:
    history = subsaga().do("sub/q", output=b"9").log(e.STARTED, "z", 1).saw("z", "begin", value=b'{"v":9}')
    history.complete("z").roll_back("request").undo("z").undo("sub/q", value=b"9").undo("sub/p")
    assert history.undo("a", value=b'{"k":3}').end(e.SAGA_ROLLED_BACK).check() == []


WHEN = dag(node("flag"), node("x", when=Ref("flag")), node("y", inputs={"v": Ref("x")}))


def test_a_skipped_branch_is_clean_and_its_output_is_null() -> None:
    history = History(WHEN).do("flag", output=b"false").log(e.BRANCH_SKIPPED, "x").log(e.STARTED, "y", 1)
    history.saw("y", "begin", value=b'{"v":null}').complete("y")
    assert history.end(e.SAGA_COMPLETED).check() == []


# -- S1 ------------------------------------------------------------------------


def test_s1_an_event_after_the_end_is_reported() -> None:
    history = History(dag(node("a"))).do("a").end(e.SAGA_COMPLETED).end(e.SAGA_COMPLETED)
    (violation,) = history.check()
    assert violation.line == "S1"
    assert [event.seq for event in violation.events] == [4, 5]


def test_s1_an_end_that_comes_too_early_is_reported() -> None:
    assert chain().do("a", "b").end(e.SAGA_COMPLETED).lines() == ["S1"]


def test_s1_an_end_while_a_node_runs_is_reported() -> None:
    assert chain().do("a", "b").start("c").end(e.SAGA_COMPLETED).lines() == ["S1"]


def test_s1_an_action_that_is_entered_after_the_end_is_reported() -> None:
    history = chain().do("a", "b", "c").end(e.SAGA_COMPLETED)
    assert history.check() == []
    assert history.saw("c", "begin").lines() == ["S1"]


def test_s1_a_stuck_saga_that_names_no_node_is_reported() -> None:
    assert failed_chain().undo_fail("b").stuck().lines() == ["S1"]


def test_s1_a_stuck_saga_that_left_another_branch_alone_is_reported() -> None:
    history = History(dag(node("a"), node("b"), node("c", "a", "b"))).do("a", "b").fail("c").roll_back()
    history.undo_fail("b")
    assert "a could still go on" in history.stuck("b").check()[0].message
    assert history.lines() == ["S1"]


def test_s1_completing_with_a_node_undone_is_reported() -> None:
    history = chain().do("a", "b", "c").roll_back("request").undo("c").end(e.SAGA_COMPLETED)
    assert history.lines() == ["S1"]


# -- S2 ------------------------------------------------------------------------


def test_s2_a_completed_node_that_was_not_undone_is_reported() -> None:
    (violation,) = failed_chain().undo("b").end(e.SAGA_ROLLED_BACK).check(believe_failures=True)[:1]
    assert violation.line == "S2"
    assert violation.events[0].node == "a"
    assert failed_chain().undo("b").end(e.SAGA_ROLLED_BACK).lines() == ["S2"]


def test_s2_a_node_in_doubt_that_was_not_undone_is_reported() -> None:
    assert History(PAIR).do("a").start("b").doubt("b").roll_back().undo("a").lines() == ["S3"]
    history = History(dag(node("b"))).start("b").doubt("b").roll_back().end(e.SAGA_ROLLED_BACK)
    assert history.lines() == ["S2"]


def test_s2_a_failed_node_whose_undo_takes_none_has_to_be_undone() -> None:
    history = History(dag(node("b", undo="unknown"))).fail("b").roll_back().end(e.SAGA_ROLLED_BACK)
    assert history.lines() == ["S2"]


def test_s2_a_plain_failure_does_not_clear_a_doubt() -> None:
    history = History(dag(node("b"))).log(e.STARTED, "b", 1).doubt("b").fail("b", 2).roll_back()
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S2"]


def test_s2_an_effect_that_came_after_the_undo_is_reported() -> None:
    history = failed_chain().undo("b", "a").saw("a", "effect").end(e.SAGA_ROLLED_BACK)
    assert history.lines() == ["S2"]


def test_s2_an_effect_of_an_action_that_said_there_was_none_is_reported_unless_it_is_believed() -> None:
    history = History(dag(node("a"))).log(e.STARTED, "a", 1).saw("a", "begin").saw("a", "effect")
    history.log(e.FAILED, "a", 1, e.Failed(e.ErrorInfo("E"))).roll_back().end(e.SAGA_ROLLED_BACK)
    assert history.lines() == ["S2"]
    assert history.lines(believe_failures=True) == []


# -- S3 ------------------------------------------------------------------------


def test_s3_an_undo_before_that_of_a_dependant_is_reported() -> None:
    history = failed_chain().undo("a", "b").end(e.SAGA_ROLLED_BACK)
    assert history.lines() == ["S3"]


def test_s3_the_order_holds_through_nodes_without_an_undo() -> None:
    three = dag(node("a"), node("b", "a", undo="none"), node("c", "b"))
    history = History(three).do("a", "b", "c").roll_back("request").undo("a", "c")
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S3"]


def test_s3_an_undo_while_a_dependant_without_undo_is_running_is_reported() -> None:
    history = History(dag(node("a"), node("b", "a", undo="none"))).do("a").start("b").roll_back("request")
    assert history.undo("a").complete("b").end(e.SAGA_ROLLED_BACK).lines() == ["S3"]


def test_s3_the_order_holds_across_the_border_of_a_subsaga() -> None:
    history = subsaga().fail("sub/q").roll_back().undo("a", value=b'{"k":3}').undo("sub/p")
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S3"]


def test_s3_the_recorder_alone_shows_an_undo_that_took_effect_too_late() -> None:
    history = failed_chain().undo("b", "a").saw("b", "effect", "undo").end(e.SAGA_ROLLED_BACK)
    (violation,) = history.check()
    assert violation.line == "S3"
    assert [effect.node for effect in violation.effects] == ["a", "b"]


# -- S4 ------------------------------------------------------------------------


def test_s4_a_new_action_after_rollback_began_is_reported() -> None:
    three = dag(node("a"), node("b"), node("c"))
    history = History(three).do("a").fail("b").roll_back().do("c").undo("c", "a")
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S4"]


def test_s4_a_retry_after_rollback_began_is_reported() -> None:
    two = dag(node("a"), node("b", retry=Retry(3)))
    history = History(two).do("a").fail("b", retry_at=0.0).roll_back("request").fail("b", 2).undo("a")
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S4"]


def test_s4_running_a_node_in_doubt_again_needs_a_reason() -> None:
    history = History(dag(node("b", undo="unknown"))).start("b").doubt("b").roll_back()
    history.start("b", attempt=2).complete("b", attempt=2).undo("b").end(e.SAGA_ROLLED_BACK)
    assert history.lines() == ["S4"]


# -- S5 ------------------------------------------------------------------------


def test_s5_two_successes_are_reported() -> None:
    history = History(dag(node("a"))).do("a").log(e.COMPLETED, "a", 1, e.Completed(b"1"))
    assert history.end(e.SAGA_COMPLETED).lines() == ["S5", "S8"]  # the second has no start either
    history = History(dag(node("a"))).do("a").start("a", attempt=2).complete("a", attempt=2)
    assert history.end(e.SAGA_COMPLETED).lines() == ["S5"]


def test_s5_an_output_that_the_action_did_not_return_is_reported() -> None:
    history = History(dag(node("a"))).start("a").saw("a", "returned", value=b"1")
    history.log(e.COMPLETED, "a", 1, e.Completed(b"2")).end(e.SAGA_COMPLETED)
    assert history.lines() == ["S5"]


# -- S6 ------------------------------------------------------------------------


def test_s6_an_action_that_got_another_input_is_reported() -> None:
    two = dag(node("a"), node("b", inputs={"v": Ref("a", ("k", 0)), "w": Value(msgspec.Raw(b"5"))}))
    for given, lines in ((b'{"v":7,"w":5}', []), (b'{"v":8,"w":5}', ["S6"]), (b'{"v":7}', ["S6"])):
        history = (
            History(two).do("a", output=b'{"k":[7]}').log(e.STARTED, "b", 1).saw("b", "begin", value=given)
        )
        assert history.complete("b").end(e.SAGA_COMPLETED).lines() == lines


def test_s6_an_element_that_got_another_item_is_reported() -> None:
    history = fan().log(e.STARTED, "x[1]", 1).saw("x[1]", "begin", value=b'{"item":4}')
    assert history.lines() == ["S6"]


def test_s6_an_undo_that_got_something_else_than_the_output_is_reported() -> None:
    assert failed_chain().undo("b", value=b"2").undo("a").end(e.SAGA_ROLLED_BACK).lines() == ["S6"]


def test_s6_an_undo_that_takes_the_output_and_gets_none_is_reported() -> None:
    history = History(dag(node("a"))).start("a").doubt("a").roll_back().undo("a", value=b"null")
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S6"]


def test_s6_a_node_that_went_ahead_of_one_it_depends_on_is_reported() -> None:
    history = History(PAIR).start("a").start("b").complete("a", "b").end(e.SAGA_COMPLETED)
    assert history.lines() == ["S6"]


def test_s6_a_key_that_changed_is_reported() -> None:
    history = History(dag(node("a"))).do("a").end(e.SAGA_COMPLETED)
    history.effects[0] = msgspec.structs.replace(history.effects[0], key="s/a/do#2")
    assert history.lines() == ["S6"]


def test_s6_a_fan_out_of_another_size_than_its_list_is_reported() -> None:
    history = History(FAN).do("many", output=b"[4]").log(e.EXPANDED, "x", data=e.Expanded(2))
    assert history.lines() == ["S6"]


def test_s6_a_branch_taken_against_its_flag_is_reported() -> None:
    history = History(WHEN).do("flag", output=b"false").log(e.BRANCH_TAKEN, "x").do("x")
    assert history.lines() == ["S6"]


def test_s6_a_node_whose_branch_was_not_decided_is_reported() -> None:
    assert History(WHEN).do("flag", output=b"true").do("x").lines() == ["S6"]


# -- S7 ------------------------------------------------------------------------


def test_s7_an_action_that_is_invoked_again_after_a_dependant_started_is_reported() -> None:
    history = chain().do("a", "b").saw("a", "begin").do("c").end(e.SAGA_COMPLETED)
    assert history.lines() == ["S7"]


def test_s7_a_log_that_starts_it_again_is_reported_too() -> None:
    history = History(PAIR).do("a", "b").start("a", attempt=2)
    history.events[-1] = msgspec.structs.replace(history.events[-1], attempt=2)
    assert history.lines() == ["S5", "S7"]  # it had succeeded, too


def test_s7_does_not_blame_a_coordinator_that_was_overtaken() -> None:
    history = chain().do("a", "b")
    history.actor = "gone"
    history.saw("a", "begin")
    history.actor = "a"
    assert history.do("c").end(e.SAGA_COMPLETED).check() == []


# -- S8 ------------------------------------------------------------------------


def test_s8_an_effect_before_its_start_is_durable_is_reported() -> None:
    history = History(dag(node("a"))).saw("a", "begin").log(e.STARTED, "a", 1).complete("a")
    assert history.end(e.SAGA_COMPLETED).lines() == ["S8"]


def test_s8_an_effect_that_the_log_knows_nothing_of_is_reported() -> None:
    history = chain().do("a").saw("b", "begin")
    assert history.lines() == ["S8"]


def test_s8_an_undo_before_its_start_is_durable_is_reported() -> None:
    history = failed_chain().saw("b", "begin", "undo", b"1").log(e.UNDO_STARTED, "b", 1)
    history.saw("b", "returned", "undo").log(e.UNDONE, "b", 1).undo("a")
    assert history.end(e.SAGA_ROLLED_BACK).lines() == ["S8"]


def test_s8_an_attempt_that_was_not_recorded_is_reported() -> None:
    history = History(dag(node("a"))).do("a").saw("a", "begin", attempt=2).end(e.SAGA_COMPLETED)
    assert history.lines() == ["S8"]


# -- S9 ------------------------------------------------------------------------


def test_s9_an_epoch_that_decreases_is_reported() -> None:
    history = chain()
    history.epoch = 2
    history.do("a")
    history.epoch = 1
    assert history.do("b", "c").end(e.SAGA_COMPLETED).lines() == ["S9"]


def test_s9_an_append_below_an_adopted_epoch_is_reported() -> None:
    history = chain().do("a").adopt(2, "b")
    history.epoch = 1
    history.do("b")
    history.epoch = 2
    assert history.do("c").end(e.SAGA_COMPLETED).lines() == ["S9"]


def test_s9_two_adoptions_at_one_epoch_are_reported() -> None:
    assert chain().do("a").adopt(2, "b").adopt(2, "c").do("b", "c").end(e.SAGA_COMPLETED).lines() == ["S9"]


# -- S10 -----------------------------------------------------------------------


def test_s10_an_append_after_a_failed_one_before_reading_is_reported() -> None:
    history = History(dag(node("a"))).do("a").end(e.SAGA_COMPLETED)
    history.append(history.events[3:], "Unavailable").append(history.events[3:])
    assert history.lines() == ["S10"]


def test_s10_an_action_after_a_failed_append_before_reading_is_reported() -> None:
    history = History(dag(node("a")))
    history.log(e.STARTED, "a", 1).append(history.events[1:], "Unavailable")
    history.saw("a", "begin").load().complete("a").end(e.SAGA_COMPLETED)
    assert history.lines() == ["S10"]


def test_s10_reading_the_log_first_is_clean() -> None:
    history = History(dag(node("a")))
    history.log(e.STARTED, "a", 1).append(history.events[1:], "Unavailable")
    history.load().saw("a", "begin").complete("a").end(e.SAGA_COMPLETED)
    assert history.append(history.events[2:]).check() == []


def test_s10_starting_a_saga_again_after_a_lost_answer_is_clean() -> None:
    history = History(dag(node("a")))
    for outcome in ("Unavailable", OK):
        order = history.tick()
        history.calls.append(
            StoreCall(order, "create", SAGA, "a", 1, tuple(history.events), outcome, history.tick())
        )
    begun = len(history.events)
    history.do("a").end(e.SAGA_COMPLETED)
    assert history.append(history.events[begun:]).check() == []


# -- S11, S12, liveness, and the rest ------------------------------------------


def test_s11_an_acknowledged_start_that_is_gone_is_reported() -> None:
    log = History(dag(node("a")), b'{"n":1}').events
    assert check_starts({"s": b'{"n":1}'}, {"s": log}) == []
    assert [v.line for v in check_starts({"s": b'{"n":1}'}, {})] == ["S11"]
    assert [v.line for v in check_starts({"s": b'{"n":2}'}, {"s": log})] == ["S11"]


def test_s11_an_acknowledged_append_that_is_gone_is_reported() -> None:
    history = History(dag(node("a"))).do("a").end(e.SAGA_COMPLETED)
    history.append([msgspec.structs.replace(history.events[2], data=e.Completed(b"9"))])
    assert history.lines() == ["S11"]


def test_s12_a_gap_in_a_log_is_reported() -> None:
    history = History(dag(node("a"))).do("a").end(e.SAGA_COMPLETED)
    history.events[3] = msgspec.structs.replace(history.events[3], seq=9)
    assert history.lines() == ["S12"]


def test_a_saga_that_did_not_end_is_reported() -> None:
    going, ended = chain().do("a").events, chain().do("a", "b", "c").end(e.SAGA_COMPLETED).events
    assert [str(v) for v in check_ended({"g": going, "e": ended})] == [
        "liveness: g has not ended (event 3 completed a)"
    ]


def test_a_rollback_after_a_pivot_is_reported() -> None:
    history = History(dag(node("a", pivot=True), node("b", "a", retry=Retry(2)))).do("a").roll_back("request")
    assert history.undo("a").end(e.SAGA_ROLLED_BACK).lines() == ["pivot"]


def test_an_attempt_too_many_is_reported() -> None:
    history = History(dag(node("a", retry=Retry(2)))).fail("a", retry_at=4.0).fail("a", 2, retry_at=8.0)
    assert history.lines() == ["retry"]


def test_an_attempt_before_its_time_is_reported() -> None:
    history = History(dag(node("a", retry=Retry(2)))).fail("a", retry_at=99.0).start("a", attempt=2)
    assert history.lines() == ["retry"]


def test_a_clean_slate_is_one_where_every_effect_was_undone() -> None:
    history = failed_chain().undo("b", "a")
    assert_clean_slate(history.effects)
    with pytest.raises(AssertionError, match="s/a"):
        assert_clean_slate(history.saw("a", "effect").effects)


# -- deaths ----------------------------------------------------------------


def dying(*deaths: int, given_up: bool = False, crashes: int | None = 3) -> list[str]:
    """What is said of an action whose process died again and again."""
    history = History(PAIR)
    for attempt, count in enumerate(deaths, 1):
        last = given_up and attempt == len(deaths)
        history.start("a", attempt=attempt)
        history.log(e.IN_DOUBT, "a", attempt, e.InDoubt("crash", deaths=count, given_up=last))
    if given_up:
        history.stuck("a")
    return history.lines(crashes=crashes)


def test_deaths_that_are_counted_and_end_at_the_limit_are_clean() -> None:
    assert dying(1, 2, 3, given_up=True) == []
    assert dying(1, 2) == []
    assert dying(0, 1, 2) == []
    assert dying(1, 2, 3, 4, given_up=True, crashes=None) == []


def test_crash_deaths_that_are_miscounted() -> None:
    assert dying(1, 1) == ["crash"]
    assert dying(1, 3) == ["crash"]
    assert dying(2) == ["crash"]


def test_crash_a_node_given_up_too_early_or_too_late() -> None:
    assert dying(1, 2, given_up=True) == ["crash"]
    assert dying(1, 2, 3) == ["crash"]
    assert dying(0, given_up=True, crashes=None) == ["crash"]


def given_up() -> History:
    history = History(PAIR).do("a").start("b")
    return history.log(e.IN_DOUBT, "b", 1, e.InDoubt("crash", deaths=1, given_up=True))


def test_crash_a_node_given_up_that_runs_again_without_a_decision() -> None:
    assert given_up().start("b", attempt=2).lines() == ["crash"]
    history = given_up().stuck("b").log(e.RETRIED, "b", data=e.Decided())
    assert history.start("b", attempt=2).complete("b", attempt=2).end(e.SAGA_COMPLETED).lines() == []


def test_crash_a_rollback_that_the_node_given_up_begins_by_itself() -> None:
    assert given_up().roll_back(node="b").lines() == ["crash"]
    assert given_up().stuck("b").roll_back("request").lines() == []


def test_s1_a_node_let_go_going_forward_without_a_rollback() -> None:
    skipped = given_up().stuck("b").log(e.SKIPPED, "b", data=e.Decided())
    assert "S1" in skipped.end(e.SAGA_COMPLETED).lines()
    resolved = given_up().stuck("b").log(e.RESOLVED, "b", data=e.Decided()).roll_back("request")
    assert resolved.undo("a").end(e.SAGA_ROLLED_BACK).lines() == []
