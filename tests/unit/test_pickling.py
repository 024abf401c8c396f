"""Actions and sagas pickle and copy as functions do: by their name in their module."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what is tested
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest

from compensate import DagBuilder, action, action_node, saga, saga_from_dag
from tests.unit.test_built_dags_fit import REGISTRY, take


@action
def work(x: int) -> int:
    return x * 2


@saga
def job(x: int) -> int:
    return work(x)


def bare(x: int) -> int:
    return x


aliased = action(name="aliased")(bare)


class Shop:
    @staticmethod
    def plain(x: int) -> int:
        return x

    @action
    def sell(x: int) -> int:  # pyright: ignore[reportSelfClsParameterName, reportGeneralTypeIssues]
        return x + 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_they_come_back_as_themselves(protocol: int) -> None:
    sell: Any = Shop.sell
    things: list[Any] = [work, job, work.fn, sell, sell.fn, bare]
    for thing in things:
        assert pickle.loads(pickle.dumps(thing, protocol)) is thing
    call = pickle.loads(pickle.dumps(partial(work.fn, 4), protocol))
    assert call() == 8


def test_variants_keep_their_settings() -> None:
    variant = job.with_id("j-1").options(deadline=5, name="n", label="l")
    back = pickle.loads(pickle.dumps(variant))
    assert back.definition is job.definition
    assert (back.saga_id, back.deadline, back._settings) == ("j-1", 5.0, variant._settings)
    placed = pickle.loads(pickle.dumps(work.options(name="n")))
    assert (placed.target, placed.settings.name) == (work, "n")


def test_copies_are_the_thing_itself() -> None:
    for thing in (work, job, job.with_id("j")):
        assert copy.copy(thing) is thing
        assert copy.deepcopy([thing])[0] is thing


def _nested() -> Any:
    @action
    def inner(x: int) -> int:
        return x

    return inner


def _nested_saga() -> Any:
    @saga
    def inner(x: int) -> int:
        return work(x)

    return inner.with_id("a")


def _built() -> Any:
    dag = DagBuilder("d", REGISTRY).append(action_node("a", take, inputs={"x": 1})).build()
    return saga_from_dag(dag, REGISTRY)


@pytest.mark.parametrize("make", [_nested, _nested_saga, _built, lambda: aliased])
def test_what_no_other_process_would_find_is_refused_with_advice(make: Callable[[], Any]) -> None:
    made = make()
    with pytest.raises(pickle.PicklingError, match="define it at the top of a module"):
        pickle.dumps(made)
    assert copy.deepcopy(made) is made


@pytest.mark.slow
def test_a_process_pool_runs_the_bare_function() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(work.fn, 4).result(timeout=60) == 8
