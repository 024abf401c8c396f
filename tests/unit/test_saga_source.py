# ruff: noqa: E501, PT012 - a line of the table is a program; a saga is defined in several lines
"""What only the source of a saga function shows is refused when it is defined; plain Python beside it is not."""

from __future__ import annotations

import importlib.util
import sys
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compensate import DefinitionError, action, saga

HEADER = """
import contextlib
import datetime
import os
import random
import threading
import time
import typing
import uuid
from contextlib import suppress
from datetime import date
from time import time as seconds
from typing import assert_type
from uuid import uuid4

from compensate import Saga, action, constant, fan_out, saga

NAMES = ["a", "b"]
LOCK = threading.Lock()
SEEN = []
ran = []


@action
async def first(x: str) -> str: ...


@action
async def then(x: str, y: str = "") -> str: ...


@action
async def many(x: str) -> list[str]: ...


@action
async def flag(x: str) -> bool: ...


@action
async def stamp(x: object) -> str: ...


@saga
def part(x: str) -> str:
    return first(x)


class Shop:
    first = first

    @staticmethod
    def tell(x):
        ran.append("tell")


def send_mail(x="ops"):
    ran.append("send_mail")


def both(x):
    return [first(x), then(x)]


def deep(x):
    both(x)


def each(step, items):
    for item in items:
        step(item)


def fill(into, x):
    into.append(x)


def check_names(names):
    assert all(names)


class Mailer:
    def send(self, x):
        ran.append("send")


MAILER = Mailer()
"""

_numbers = count()


def module_of(tmp_path: Path, body: str) -> tuple[ModuleType, int]:
    """A module with one saga `one(x, y)`, and the line on which its body begins."""
    source = HEADER + "\n\n@saga\ndef one(x: str, y: str = '') -> object:\n"
    line = source.count("\n") + 1
    lines = [f"    {each}" for each in body.strip("\n").splitlines()]
    name = f"saga_source_{next(_numbers)}"
    path = tmp_path / f"{name}.py"
    path.write_text(source + "\n".join(lines) + "\n")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except DefinitionError:
        module.__dict__["one"] = None
        raise
    finally:
        del sys.modules[name]
    return module, line


IDENTITY = {
    "param": "return first(x) if x is None else x  #!",
    "the other way round": "return first(x) if None is not x else x  #!",
    "statement": "a = first(x)\nif a is None:  #!\n    return x\nreturn a",
    "not none": "a = first(x)\nif a is not None:  #!\n    then(a)\nreturn a",
    "elif": "a = first(x)\nif NAMES is None:\n    pass\nelif a is None:  #!\n    pass\nreturn a",
    "a call itself": "if first(x) is None:  #!\n    return x\nreturn x",
    "a part": "a = many(x)\nif a[0] is None:  #!\n    return x\nreturn x",
    "while": "a = first(x)\nwhile a is None:  #!\n    a = first(x)\nreturn a",
    "assert": "a = first(x)\nassert a is not None  #!\nreturn a",
    "walrus": "if (a := first(x)) is None:  #!\n    return x\nreturn a",
    "walrus used later": "b = then(a := first(x))\nreturn b if a is not None else x  #!",
    "comprehension": "a = first(x)\nreturn [then(name) for name in NAMES if a is not None]  #!",
    "loop over references": "held = [first(n) for n in NAMES]\nfor h in held:\n    if h is None:  #!\n        pass\nreturn held",
    "comprehension over references": "held = [first('a'), first('b')]\nreturn [h for h in held if h is not None]  #!",
    "chain": "a = first(x)\nreturn then(x) if NAMES is a is None else a  #!",
    "true": "f = flag(x)\nreturn first(x) if f is True else x  #!",
    "two references": "a = first(x)\nb = first(x)\nreturn a if a is b else b  #!",
    "boolean operation": "a = first(x)\nreturn first(x) if NAMES and a is None else x  #!",
    "lambda": "a = first(x)\ng = lambda: a is None  #!\nreturn a",
    "nested function": "a = first(x)\ndef inner():\n    return a is None  #!\ninner()\nreturn a",
    "parameter of a lambda": "a = first(x)\nnone = lambda q: q is None  #!\nreturn then(x) if none(a) else a",
    "parameter of a nested function": "def inner(q):\n    return then(x) if q is None else q  #!\nreturn inner(first(x))",
    "parameter by name": "def inner(n, *, q):\n    return then(n) if q is not None else q  #!\nreturn [inner(n, q=first(n)) for n in NAMES]",
    "parameter of a function that calls itself": "def inner(n, q):\n    if q is None:  #!\n        return x\n    return inner(n - 1, first(q)) if n else q\nreturn inner(3, x)",
    "part of a parameter": "def inner(q):\n    return then(x) if q[0] is None else q  #!\nreturn inner(many(x))",
    "type": "a = first(x)\nreturn then(x) if type(a) is str else a  #!",
    "type equals": "a = first(x)\nreturn then(x) if str == type(a) else a  #!",
    "type in": "return first(x) if type(x) in (str, int) else x  #!",
    "type of a parameter": "def inner(q):\n    return then(x) if type(q) is str else q  #!\nreturn inner(first(x))",
    "unpacked": "a, b = first(x), many(x)\nif b is None:  #!\n    pass\nreturn a",
    "when": "a = first.when(flag(x))(x)\nif a is None:  #!\n    return x\nreturn a",
    "options": "a = first.options(name='n').after(first(x))(x)\nif a is None:  #!\n    return x\nreturn a",
    "placed in a name": "step = first.options(name='n')\na = step(x)\nif a is None:  #!\n    return x\nreturn a",
    "subsaga": "a = part(x)\nif a is None:  #!\n    return x\nreturn a",
    "fan-out": "a = fan_out(first, many(x))\nif a is None:  #!\n    return x\nreturn a",
    "constant": "a = constant('c')\nif a is None:  #!\n    return x\nreturn a",
    "in a class": "a = Shop.first(x)\nif a is None:  #!\n    return x\nreturn a",
    "after a plain value": "a = None\na = first(x)\nif a is None:  #!\n    return x\nreturn a",
    "on both branches": "if NAMES:\n    a = first(x)\nelse:\n    a = then(x)\nif a is None:  #!\n    pass\nreturn a",
    "in an argument": "a = first(x)\nreturn then(x, 'n' if a is None else 'y')  #!",
    "in a dict": "a = first(x)\nreturn {'k': a is None}  #!",
    "in an f-string": "a = first(x)\nreturn f'{a is None}'  #!",
}

MATCH = {
    "none": "a = first(x)\nmatch a:\n    case None:  #!\n        return x\n    case _:\n        return a",
    "or": "a = first(x)\nmatch a:\n    case 'x' | None:  #!\n        return x\n    case other:\n        return other",
    "sequence": "match many(x):\n    case [one_]:  #!\n        return one_\n    case _:\n        return x",
    "inside a tuple": "match (NAMES, first(x)):\n    case (_, None):  #!\n        return x\n    case _:\n        return x",
    "as": "match first(x):\n    case None as n:  #!\n        return n\nreturn x",
    "a parameter": "def inner(q):\n    match q:\n        case None:  #!\n            return x\n        case _:\n            return q\nreturn inner(first(x))",
    "guard": "match first(x):\n    case a if a is None:  #!\n        return x\nreturn x",
}

TRY = {
    "except": "try:\n    return first(x)  #!\nexcept ValueError:\n    return then(x)",
    "finally": "try:\n    a = first(x)  #!\nfinally:\n    NAMES.count('a')\nreturn a",
    "group": "try:\n    return first(x)  #!\nexcept* ValueError:\n    pass\nreturn x",
    "nested in if": "try:\n    if NAMES:\n        a = first(x)  #!\nexcept KeyError:\n    a = x\nreturn a",
    "in an argument": "try:\n    return then(first(x))  #!\nexcept KeyError:\n    return x",
    "options": "try:\n    return first.options(name='n')(x)  #!\nexcept Exception:\n    return x",
    "subsaga": "try:\n    return part(x)  #!\nexcept Exception:\n    return x",
    "fan-out": "try:\n    return fan_out(first, many.when(flag(x))(x))  #!\nexcept Exception:\n    return x",
    "helper": "try:\n    return both(x)  #!\nexcept Exception:\n    return x",
    "comprehension": "try:\n    return [first(n) for n in NAMES]  #!\nexcept Exception:\n    return x",
    "suppress": "with suppress(ValueError):\n    first(x)  #!\nreturn x",
    "suppress by module": "with open(os.devnull) as f, contextlib.suppress(ValueError):\n    first(x)  #!\nreturn x",
    "lock": "with LOCK:\n    first(x)  #!\nreturn x",
    "in a nested function": "def inner():\n    try:\n        return first(x)  #!\n    except KeyError:\n        return x\nreturn inner()",
}

UNUSED = {
    "a reference": "a = first(x)\nsend_mail(a)  #!\nreturn a",
    "a param": "send_mail(x)  #!\nreturn first(x)",
    "by name": "send_mail(x=first(x))  #!\nreturn x",
    "nothing": "send_mail()  #!\nreturn first(x)",
    "a literal": "send_mail('ops')  #!\nreturn first(x)",
    "static method": "Shop.tell(first(x))  #!\nreturn x",
    "method of an object": "MAILER.send(first(x))  #!\nreturn x",
    "print": "print(first(x))  #!\nreturn x",
    "in a loop": "for name in NAMES:\n    send_mail(first(name))  #!\nreturn x",
    "in a branch": "if NAMES:\n    send_mail(first(x))  #!\nreturn x",
    "list of references": "send_mail([first(x)][0])  #!\nreturn x",
    "nested": "def tell(v):\n    ran.append(v)\ntell(first(x))  #!\nreturn x",
}

BAKED = {
    "now": "return stamp(datetime.datetime.now())  #!",
    "today": "return stamp(date.today())  #!",
    "time": "return stamp(time.time())  #!",
    "renamed": "return stamp(seconds())  #!",
    "uuid": "return stamp(uuid4())  #!",
    "text of a uuid": "return stamp(str(uuid.uuid4()))  #!",
    "part": "return stamp(uuid4().hex)  #!",
    "f-string": "return stamp(f'id-{uuid4()}')  #!",
    "chance": "return stamp(random.random())  #!",
    "choice": "return stamp(random.choice(NAMES))  #!",
    "bytes": "return stamp(os.urandom(3).hex())  #!",
    "arithmetic": "return stamp(time.time() + 60)  #!",
    "in a list": "return stamp([time.time()])  #!",
    "by name": "return then(first(x), y=str(uuid4()))  #!",
    "in a name": "now = datetime.datetime.now(datetime.UTC)\nreturn stamp(now)  #!",
    "in a name, later": "now = time.time()\nuntil = now + 60\nreturn stamp(str(until))  #!",
    "constant": "return constant(time.time())  #!",
    "options": "return stamp.options(name='n')(time.time())  #!",
    "subsaga": "return part(str(time.time()))  #!",
}

REFUSED = [
    (f"{group}: {name}", body, words)
    for group, shapes, words in (
        ("is", IDENTITY, "only stands for a value to come"),
        ("match", MATCH, "only stands for a value to come"),
        ("try", TRY, "the call only makes a node"),
        ("unused", UNUSED, "its result is not used"),
        ("baked", BAKED, "is evaluated once, when the saga is defined"),
    )
    for name, body in shapes.items()
]


@pytest.mark.parametrize(("name", "body", "words"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_it_is_refused_with_its_line_and_what_to_write(
    name: str, body: str, words: str, tmp_path: Path
) -> None:
    wanted = next(i for i, line in enumerate(body.splitlines()) if line.endswith("#!"))
    with pytest.raises(DefinitionError) as caught:
        module_of(tmp_path, body)
    said = str(caught.value)
    place = (HEADER + "\n\n@saga\ndef one(x: str, y: str = '') -> object:\n").count("\n") + 1 + wanted
    assert f".py:{place}: in saga one: " in said
    assert words in said
    assert any(
        advice in said
        for advice in (
            "let an action return a bool",
            "inside the action",
            "into the action",
            "@action",
            "inside an action",
        )
    )


ACCEPTED = {
    "a plain value": "a = None\nfor n in NAMES:\n    if a is None:\n        a = first(n)\n    else:\n        a = then(a, n)\nreturn a",
    "a plain name": "a = NAMES[0]\nreturn first(x) if a is None else then(a)",
    "on one branch only": "a = None\nif NAMES:\n    a = first(x)\nif a is None:\n    a = then(x)\nreturn a",
    "a branch that leaves": "a = None\nif not NAMES:\n    return x\nif a is not None:\n    return x\nreturn first(x)",
    "a plain list": "found = [n for n in NAMES if n is not None]\nreturn [first(n) for n in found]",
    "a param that was replaced": "y = None\nreturn first(x) if y is None else x",
    "match on plain": "match NAMES:\n    case [a, b]:\n        return then(first(a), b)\n    case _:\n        return first(x)",
    "match that binds": "match first(x):\n    case a:\n        return then(a)",
    "try around plain": "try:\n    names = NAMES[:]\nexcept KeyError:\n    names = []\nreturn [first(n) for n in names]",
    "an action in a handler": "try:\n    raise KeyError\nexcept KeyError:\n    return first(x)",
    "with a file": "with open(os.devnull) as f:\n    return [first(x), *[then(line) for line in f]]",
    "suppress around plain": "with suppress(KeyError):\n    {}['k']\nreturn first(x)",
    "append": "held = []\nfor n in NAMES:\n    held.append(first(n))\nreturn held",
    "append to plain": "names = []\nnames.append('a')\nreturn [first(n) for n in names]",
    "extend": "held = [first(x)]\nheld.extend([then(x)])\nreturn held",
    "dict": "held = {}\nheld.update(a=first(x))\nreturn held",
    "global list": "SEEN.append(first.name)\nreturn first(x)",
    "print plain": "print('traced')\nreturn first(x)",
    "a check of known values": "check_names(NAMES)\nreturn first(x)",
    "a helper that makes nodes": "both(x)\nreturn first(x)",
    "a helper of a helper": "deep(x)\nreturn first(x)",
    "a helper that is given an action": "each(first, NAMES)\nreturn then(x)",
    "a helper that fills": "held = []\nfill(held, first(x))\nreturn held",
    "a nested helper": "def step(n):\n    return then(first(n))\nstep(x)\nreturn [step(n) for n in NAMES]",
    "a nested action": "@action(name='inner')\ndef inner(v: str) -> bool:\n    try:\n        return v is None\n    finally:\n        send_mail(v)\nreturn inner(x)",
    "an unused node": "first(x)\nthen.after('first')(x)\npart(x)\nfan_out(first, NAMES)\nconstant(5, name='five')\nreturn x",
    "an action in a class": "Shop.first(x)\nreturn x",
    "a placed name": "step = first.options(name='n')\nstep(x)\nreturn x",
    "time that goes nowhere": "began = time.time()\nassert began > 0\nreturn first(x)",
    "a known time": "return stamp(datetime.datetime(2026, 1, 1).isoformat())",
    "a seeded number": "return stamp(uuid.uuid5(uuid.NAMESPACE_DNS, 'a').hex)",
    "for the type checkers": "a = first(x)\nassert_type(a, str)\ntyping.reveal_type(a) if NAMES is None else None\nreturn a",
    "a parameter that is given none once": "def step(q, n):\n    return first(n) if q is None else then(q, n)\na = step(None, x)\nreturn step(a, x)",
    "a parameter that is given none in a loop": "def step(q, n):\n    return first(n) if q is None else then(q, n)\na = None\nfor n in NAMES:\n    a = step(a, n)\nreturn a",
    "a parameter with a default": "def step(n, q=None):\n    return first(n) if q is None else then(q, n)\nreturn step(x, first(x))",
    "a parameter of a function that is passed on": "def step(q):\n    return first(x) if q is None else q\nstep(first(x))\nreturn list(map(step, [None, x]))",
    "a parameter given by unpacking": "def step(q, n):\n    return first(n) if q is None else q\nstep(*[None, x])\nstep(first(x), x)\nreturn step(**{'q': None, 'n': x})",
    "a parameter that is set": "def step(q):\n    q = None\n    return first(x) if q is None else q\nreturn step(first(x))",
    "a parameter that is set from inside": "def step(q):\n    def clear():\n        nonlocal q\n        q = None\n    return first(x) if clear() or q is None else q\nreturn step(first(x))",
    "a parameter of one of two functions": "if NAMES:\n    def step(q):\n        return first(x) if q is None else q\nelse:\n    def step(q):\n        return q\nreturn step(first(x))",
    "a parameter given none where nobody looks": "class Inner:\n    made = None\n\n    def make(self):\n        return step(None)\ndef step(q):\n    return first(x) if q is None else q\nmade = Inner().make()\nreturn [made, step(first(x))]",
    "type of plain": "n = NAMES[0]\nreturn first(n) if type(n) is str else x",
    "type of a node": "return first(x) if type(first) is not str else x",
    "comparing plain": "return first(x) if NAMES is SEEN else then(x)",
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_plain_python_beside_it_is_accepted(body: str, tmp_path: Path) -> None:
    module, _ = module_of(tmp_path, body)
    assert module.one.dag.nodes


def test_a_refused_helper_has_not_run(tmp_path: Path) -> None:
    ran: list[str] = []
    with pytest.raises(DefinitionError, match="its result is not used"):

        def tell(x: str) -> None:
            ran.append(x)

        @saga
        def one(x: str) -> None:
            tell(x)

    assert ran == []


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("return first(''.join([first(x)]))", "sequence item 0: expected str instance, Reference found"),
        ("return first(slashed(first(x)))", "sequence item 1: expected str instance, Reference found"),
    ],
)
def test_python_that_refuses_the_type_of_a_reference_is_explained(
    line: str, cause: str, tmp_path: Path
) -> None:
    setup = "def slashed(v):\n    return '/'.join(['a', v])\n"
    with pytest.raises(DefinitionError) as caught:
        module_of(tmp_path, setup + line)
    said = str(caught.value)
    inside = 1 if "slashed" in line else 2
    place = (HEADER + "\n\n@saga\ndef one(x: str, y: str = '') -> object:\n").count("\n") + 1 + inside
    assert f".py:{place}: in saga one: {cause}: a saga is traced before it runs" in said
    assert "compute it in an action" in said
    assert isinstance(caught.value.__cause__, TypeError)
    assert str(caught.value.__cause__) == cause


def test_another_type_error_of_a_saga_function_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected str instance, int found"):
        module_of(tmp_path, "return first(''.join([5]))")


def test_a_function_without_source_is_not_examined() -> None:
    @action
    async def first(x: str) -> str:
        return x

    space: dict[str, Any] = {"saga": saga, "first": first}
    exec("@saga\ndef one(x: str) -> str:\n    return first(x) if x is not None else x\n", space)
    assert [node.name for node in space["one"].dag.nodes] == ["first"]


def test_a_default_that_is_made_at_import_is_refused(tmp_path: Path) -> None:
    source = HEADER + "\n\n@saga\ndef one(x: str, at: float = time.time()) -> str:\n    return first(x)\n"
    path = tmp_path / "saga_source_default.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("saga_source_default", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(DefinitionError, match=r"`time.time\(\)` is evaluated once"):
        spec.loader.exec_module(module)
