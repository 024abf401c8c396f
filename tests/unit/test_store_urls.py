"""Store urls: what each opens, and how nonsense is refused."""

import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from compensate import Coordinator, SagaExecutor, action, connect, saga
from compensate.cli import main
from compensate.errors import StoreUrlInvalid
from compensate.stores import FORMS, open_store, redacted, store_exists
from compensate.stores.memory import MemoryStore
from compensate.stores.urls import scrubbed


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


SECRETS = [
    "postgres://:S3CRET@h",
    "postgresql://u:S3@CRET@h/d",
    "postgresql://u:S3/CRET@h/d",
    "postgresql://u:S3?CRET@h/d",
    "postgresql://u:S3#CRET@h/d",
    "postgresql://u:S3CRET#@h/d?sslmode=require",
    "postgresql://u:S3:CRET@h:5432,h2:5432/d",
    "postgresql://u:'S3 \"CRET'@h/d",
    "postgresql://u:S3%43RET%40CRET@h/d",
    "postgresql://S3CRET@h/d",
    "postgresql+psycopg://u:S3CRET@[::1]:5432/d",
    "POSTGRESQL://u:S3CRET@h",
    " postgresql://u:S3CRET@h",
    "sqlite://u:S3CRET@h/x",
    "sqlite:///u:S3CRET@h/x?a=b",
    "sqlite:///u:S3/CRET@h/x?a=b",
    "file://u:S3CRET@h/x",
    "redis://:S3CRET@h:1/0",
    "memory://S3CRET@x",
    "postgresql://u:S3CRET/d",
    "postgresql://u:S3CRET",
    "postgresql://h/d#S3CRET",
    "postgresql://h/db?password=S3CRET",
    "postgresql://h/db?user=u&password=S3CRET&sslmode=require",
    "postgresql://h/db?PassWord=S3CRET",
    "postgresql://h/db?p%61ssword=S3CRET",
    "postgresql://h/db?password=S3/CRET@x",
    "postgresql://h/db?password=S3&CRET",
    "postgresql://h/db?password=S3;CRET",
    "postgresql://h/db?sslpassword=S3CRET&sslkey=S3CRET.key",
    "postgresql://h/db?passfile=/S3CRET",
    "postgresql://h/db?token=S3CRET",
    "postgresql://h/db?key=S3CRET",
    "postgresql://h/db?options=-c%20x=S3CRET",
    "postgresql://h/db?user=u:S3CRET@h",
    "postgresql://h/db?S3CRET",
    "sqlite:///a.db?password=S3CRET",
    "file:///a?key=S3CRET",
    "host=h password=S3CRET",
    "host=h password = S3CRET",
    "host=h password='S3 CRET' user=u",
    "host=h password='S3\\' CRET' user=u",
    "host=h password=S3\\ CRET user=u",
    "host=h password=S3 CRET",
    "password=S3CRET",
    "Server=h;Uid=u;Pwd=S3CRET;",
    "u:S3CRET@h/d",
    "u:S3@CRET@h",
    "u:S3CRET",
    "//u:S3CRET@h/d",
    "postgresql:u:S3CRET@h",
    "postgresql:/u:S3CRET@h/d",
    "postgresql:S3CRET",
    "postgresql%3A%2F%2Fu%3AS3CRET%40h%2Fd",
    "u%3AS3CRET%40h",
    '{"host": "h", "password": "S3CRET"}',
    "jdbc:postgresql://h/d?user=u&password=S3CRET",
]


@action
async def one() -> int:
    return 1


@saga
def quick() -> int:
    return one()


def chain(error: BaseException | None) -> str:
    """All that an error and what led to it say, as a log or a debugger shows them."""
    said: list[str] = []
    while error is not None:
        said += [str(error), repr(error), repr(error.args), *getattr(error, "__notes__", ())]
        said.append("".join(traceback.format_exception(error)))
        error = error.__cause__ or error.__context__
    return "\n".join(said)


@pytest.mark.parametrize("url", SECRETS)
def test_nothing_that_could_be_a_password_is_repeated(url: str) -> None:
    assert "CRET" not in redacted(url)
    for refuse in (
        open_store,
        store_exists,
        Coordinator,
        connect,
        lambda url: SagaExecutor(quick, store=url),
    ):
        with pytest.raises(StoreUrlInvalid) as caught:
            refuse(url)
        frames = traceback.format_exception(caught.value)
        assert "CRET" not in chain(caught.value), frames


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize("how", [(), ("--json",), ("--debug",)])
def test_the_command_line_repeats_no_password(
    url: str, how: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ls", "--store", url, *how]) == 2
    monkeypatch.setenv("COMPENSATE_STORE", url)
    assert main(["show", "x", *how]) == 2
    said = "".join(capfd.readouterr())
    assert "CRET" not in said
    assert "store url" in said


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "postgresql://u:S3CRET@h/d"),
        ("show", "postgresql://u:S3CRET@h/d"),
        ("run", "postgresql://u:S3CRET@h/d"),
        ("ls", "--stor", "postgresql://u:S3CRET@h/d"),
        ("ls", "--name", "password=S3CRET/"),
    ],
)
@pytest.mark.parametrize("how", [(), ("--json",), ("--debug",)])
def test_a_url_in_the_wrong_place_is_not_repeated_either(
    words: tuple[str, ...], how: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").mkdir()
    assert main([*words, *how, "--store", f"file:///{tmp_path}/f"]) != 0
    assert "S3CRET" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a.db",
        "sqlite:////srv/some folder/a@b.db",
        "sqlite:///a#1?.db",
        "file:////srv/sagas/2026:01@x",
        "memory://",
        "postgresql://host:5432,other:5433/db?sslmode=require&application_name=shop",
        "postgresql://[::1]:5432/db",
        "sagas.db",
        "sqlite:sagas.db",
        "./folder/sagas.db",
        "host=h dbname=d",
    ],
)
def test_what_holds_no_password_is_shown_as_it_is(url: str) -> None:
    assert redacted(url) == url


def test_a_message_of_other_origin_is_scrubbed() -> None:
    said = (
        "could not connect to postgresql://u:S3CRET@h:1/d (password=S3CRET, token: 'S3 CRET'), "
        "see https://example.com/x?id=5"
    )
    shown = scrubbed(said)
    assert "CRET" not in shown
    assert "postgresql://u:***@h:1/d" in shown
    assert "https://example.com/x?id=5" in shown
