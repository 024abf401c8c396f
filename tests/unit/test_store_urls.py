"""Store urls: what each opens, and how nonsense is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from compensate.errors import StoreUrlInvalid
from compensate.stores import FORMS, open_store
from compensate.stores.memory import MemoryStore


def test_memory_urls_open_a_new_store_each_time() -> None:
    first, second = open_store("memory://"), open_store("memory://")
    assert isinstance(first, MemoryStore)
    assert first is not second
    assert first.url == "memory://"


def test_sqlite_urls_take_a_relative_or_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compensate.stores.sqlite import SqliteStore

    monkeypatch.chdir(tmp_path)
    relative = open_store("sqlite:///a folder/sagas#1?.db")
    assert isinstance(relative, SqliteStore)
    assert relative._path == tmp_path / "a folder" / "sagas#1?.db"
    assert relative.url == "sqlite:///a folder/sagas#1?.db"
    absolute = open_store("sqlite:////srv/sagas.db")
    assert isinstance(absolute, SqliteStore)
    assert absolute._path == Path("/srv/sagas.db")
    assert list(tmp_path.iterdir()) == [], "nothing is made before the store is opened"


NONSENSE = {
    "": "no '://'",
    "sagas.db": "no '://'",
    "sqlite:sagas.db": "no '://'",
    "sqlite://": "three slashes",
    "sqlite:///": "path is missing",
    "sqlite://sagas.db": "sqlite:///sagas.db",
    "sqlite:///:memory:": "memory://",
    "sqlite:///a\0b": "NUL",
    "memory://x": "nothing can follow",
    "mysql://host/db": "no store 'mysql'",
    "SQLITE:///a.db": "no store 'SQLITE'",
    "postgresql://host/db": "this version has no store on PostgreSQL",
    "sqlite:///a.db?mode=ro": "leave out the '\\?'",
    "file:///folder?sync=no": "leave out the '\\?'",
}


@pytest.mark.parametrize("url", NONSENSE)
def test_a_url_that_makes_no_sense_is_refused_with_the_forms_that_do(url: str) -> None:
    with pytest.raises(StoreUrlInvalid, match=NONSENSE[url]) as caught:
        open_store(url)
    assert repr(url) in str(caught.value)
    for form in FORMS:
        assert form in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://ann:s3cret@host/db", "mysql://ann:s3cret@host:1/db?x=y"])
def test_a_password_in_a_refused_url_is_not_repeated(url: str) -> None:
    with pytest.raises(StoreUrlInvalid, match=r"ann:\*\*\*@host") as caught:
        open_store(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", [None, 5, Path("a.db"), b"memory://"])
def test_a_url_that_is_no_text_is_refused(url: object) -> None:
    with pytest.raises(StoreUrlInvalid, match="give a str"):
        open_store(url)  # type: ignore[arg-type]


def test_sqlite_is_not_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys; from compensate.stores import open_store; open_store('memory://')\n"
        "assert 'sqlite3' not in sys.modules\n"
        "open_store('sqlite:///a.db')\n"
        "assert 'sqlite3' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
