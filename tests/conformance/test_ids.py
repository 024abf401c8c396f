"""Ten thousand ids, most of them made to be confused, through every store: none is lost, none meets another."""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from compensate.core.names import LONGEST, check_saga_id
from compensate.errors import NameInvalid
from compensate.stores.base import NewSaga, Store
from compensate.stores.file import FileStore
from compensate.stores.file_names import decode_id, encode_id
from compensate.testing.conformance.tools import NOW, done, new
from tests.conformance.places import PLACES
from tests.support.disks import Hasty

COUNT = 10_000

WORDS = (
    *("order", "Order", "ORDER", "con", "CON", "nul.txt", "com1", "LPT9", "aux", "prn"),
    *(
        "..",
        "...",
        ".hidden",
        "~",
        "~1",
        "%",
        "%2e",
        "%2E%2E",
        "%2f",
        "%252f",
        "$HOME",
        "a b",
        "a  b",
        "-rf",
        "*",
        "?",
    ),
    *(
        "it's",
        '"quoted"',
        "`id`",
        "back\\slash",
        "c:",
        "a|b",
        "<x>",
        "semi;colon",
        "DROP TABLE sagas",
        "\\u0041",
    ),
    *(
        "é",
        "e\u0301",
        "Å",
        "\u212b",
        "A\u030a",
        "ﬁ",
        "fi",
        "ß",
        "SS",
        "ss",
        "ı",
        "I",
        "i",
        "İ",
        "ſ",
        "K",
        "\u212a",
    ),
    *(
        "日本語",
        "🧾",
        "👩‍👩‍👧",
        "👍🏽",
        "ö",
        "o\u0308",
        "Ω",
        "\u2126",
        "한글",
        unicodedata.normalize("NFD", "한글"),
    ),
    *(
        "log",
        ".log",
        ".json",
        "x.log.json",
        ".new-x",
        ".lock",
        ".owners",
        ".before",
        "sagas.db",
        "\u00a0x",
        "x" * 90,
    ),
)


def variants(text: str) -> list[str]:
    """What careless file systems and databases take for the same."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    return [text, text.lower(), text.upper(), text.title(), text.swapcase(), text.casefold(), *forms]


def odd_ids(seed: int) -> list[str]:
    """Legal ids, all different."""
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < COUNT:
        text = "".join(chance.choice(WORDS) for _ in range(chance.randint(1, 4)))
        if chance.random() < 0.1:
            text = (text * LONGEST)[:LONGEST]
        if chance.random() < 0.2:
            text = f"{text}{chance.randrange(1_000)}"[-LONGEST:]
        for variant in variants(text):
            try:
                found[check_saga_id(variant)] = None
            except NameInvalid:
                continue
    return list(found)[:COUNT]


def hasty(kind: str, folder: Path) -> Callable[[], Store]:
    """Makes the store of that kind; the file store without waiting for the disk."""
    if kind == "file":
        return lambda: FileStore(folder / "sagas", disk=Hasty())
    return PLACES[kind](folder).store


def numbered(number: int, saga_id: str) -> NewSaga:
    return new(saga_id, NOW + number, name=f"n{number}")


@pytest.mark.parametrize("kind", PLACES)
async def test_ten_thousand_odd_ids_neither_meet_nor_escape(kind: str, seed: int, tmp_path: Path) -> None:
    ids = odd_ids(seed)
    assert len(set(ids)) == COUNT
    home = tmp_path / "home"
    home.mkdir()
    open_store = hasty(kind, home)
    store = open_store()
    await store.open()
    for first in range(0, COUNT, 500):
        batch = [store.create(numbered(number, ids[number]), "me") for number in range(first, first + 500)]
        for write in batch:
            await done(write)
    for number in random.Random(seed).sample(range(COUNT), 200):
        stored = await store.load(ids[number])
        assert (stored.record.id, stored.record.name) == (ids[number], f"n{number}")
    listed: dict[str, str] = {}
    cursor: str | None = None
    while True:
        page = await store.page(cursor=cursor, limit=5_000)
        listed.update((record.id, record.name) for record in page.records)
        cursor = page.cursor
        if cursor is None:
            break
    assert listed == {saga_id: f"n{number}" for number, saga_id in enumerate(ids)}
    leave_undocumented(store)
    await store.close()
    folders = {path: names for path, _, names in os.walk(tmp_path)}
    assert set(folders) <= {
        str(path) for path in (tmp_path, home, home / "sagas", home / "sagas" / ".owners")
    }
    assert folders[str(tmp_path)] == []
    if kind == "file":
        assert sum(name.endswith(".log") for name in folders[str(home / "sagas")]) == COUNT


def leave_undocumented(store: Store) -> None:
    """Ten thousand state documents would say nothing about names that the logs do not."""
    if isinstance(store, FileStore):
        store._shelf.outdated.clear()


def test_no_two_ids_have_one_file_name_on_any_file_system(seed: int) -> None:
    ids = odd_ids(seed)
    names = {saga_id: encode_id(saga_id) for saga_id in ids}
    as_careless_systems_see_them = {unicodedata.normalize("NFKD", name).casefold() for name in names.values()}
    assert len(as_careless_systems_see_them) == COUNT
    long = 0
    for saga_id, name in names.items():
        assert len(f".new-{name}.json.before.part".encode()) <= 255
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.%~")
        assert not name.startswith(".")
        assert name.split(".")[0] not in ("con", "prn", "aux", "nul", "com1", "lpt9")
        assert name.isascii()
        if "~" in name:
            long += 1
        else:
            assert decode_id(name) == saga_id
    assert long > 100
