"""Store urls as they may be shown: with nothing in them that could be a password.

What is not known to be harmless is masked. A url that was refused need not be one: whoever mistypes a password types
characters that should have been quoted, or forgets the `@`, or gives a connection string of another kind.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

MASK: Final = "***"

_HARMLESS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        application_name cache channel_binding client_encoding connect_timeout database db dbname driver gssencmode host
        hostaddr immutable keepalives keepalives_count keepalives_idle keepalives_interval listen load_balance_hosts
        mode port prepare read_only readonly schema server sslcert sslcertmode sslmode sslrootcert sync synchronous
        target_session_attrs tcp_user_timeout timeout uid user username
        """,
    )
)
"""Options whose values are shown."""

_PATHS: Final = frozenset({"sqlite", "file"})
_SCHEME: Final = re.compile(r"\s*[A-Za-z][\w+.-]*")
_PORT: Final = re.compile(r"\d{0,5}(?=[/?,]|$)")
_WORD: Final = re.compile(
    r"(?P<key>[^\s;=]+)\s*=\s*(?P<value>'(?:\\.|[^'\\])*'?|\"[^\"]*\"?|(?:\\.|[^\s;\\])*)|[^\s;]+", re.DOTALL
)
_URL: Final = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")
_SECRET: Final = re.compile(
    r"(?P<key>\b\w*(?:passw|pwd|passphrase|passfile|secret|token|api_?key|credential)\w*)(?P<is>['\"]?\s*[=:]\s*)"
    r"(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s,;&'\"]+)",
    re.IGNORECASE,
)


def redacted(url: str) -> str:
    """A store url, or what was given for one, with `***` for every part that could be a password.

    Masked are the userinfo but for the user's name, the values of options that are not known to be harmless, and, in
    a text of no known form, what follows a colon or an equals sign.
    """
    scheme, separator, rest = url.partition("://")
    if separator and _SCHEME.fullmatch(scheme):
        path = scheme.strip().lower() in _PATHS and rest.startswith("/")
        return f"{scheme}://{_path(rest) if path else _address(rest)}"
    plain = unquote(url)
    if plain != url and redacted(plain) != plain:
        return redacted(plain)
    if "=" in url and not _looks_like_a_path(url):
        return " ".join(_word(match) for match in _WORD.finditer(url))
    head, colon, tail = url.rpartition("@")
    if colon:
        return f"{_userinfo(head)}@{_address(tail)}"
    head, colon, tail = url.partition(":")
    if not colon or (head.lower() in {*_PATHS, "memory"} and ":" not in tail):
        return url
    return f"{head}:{MASK}"


def _looks_like_a_path(text: str) -> bool:
    return re.fullmatch(r"[./\w -]*[/.][./\w -]*=[\w.-]*", text) is not None and _SECRET.search(text) is None


def _path(rest: str) -> str:
    """What follows `sqlite://` or `file://`: a name on this machine, unless it was meant for something else."""
    path, mark, options = rest.partition("?")
    if mark and "=" in options:
        rest = f"{path}?{_options(options)}"
    head, at, tail = rest.rpartition("@")
    if at and ":" in head.partition("@")[0].lstrip("/").partition("/")[0]:
        return f"/{_userinfo(head.lstrip('/'))}@{tail}"
    return rest


def _address(rest: str) -> str:
    """What follows `scheme://`."""
    head, at, tail = rest.rpartition("@")  # the last: an unquoted password may hold some
    if at and not ("?" in head and "=" in head.partition("?")[2] and ":" not in head.partition("?")[0]):
        return f"{_userinfo(head)}@{_location(tail)}"
    return _location(rest)


def _userinfo(text: str) -> str:
    user, colon, _ = text.partition(":")
    if not colon or not re.fullmatch(r"[\w.%+-]*", user):
        return MASK  # perhaps a token
    return f"{user}:{MASK}"


def _location(text: str) -> str:
    """Host, port, path and options."""
    place, mark, options = text.partition("?")
    place, hash_, _ = place.partition("#")
    if hash_:
        place = f"{place}#{MASK}"
    host, colon, port = place.partition(":")
    if colon and not host.startswith("[") and not _PORT.match(port):
        place = f"{host}:{MASK}"  # no port: a password whose host is missing
    return f"{place}?{_options(options)}" if mark else place


def _options(text: str) -> str:
    return "&".join(_option(part) for part in text.split("&"))


def _option(part: str) -> str:
    key, is_, value = part.partition("=")
    if not is_:
        return MASK if part else ""
    return part if key.lower() in _HARMLESS and not set(value) & set("?;@:= ") else f"{_key(key)}={MASK}"


def _word(match: re.Match[str]) -> str:
    key, value = match["key"], match["value"]
    if key is None:
        return MASK  # what is left of a value that should have been quoted
    return f"{key}={value}" if key.lower() in _HARMLESS else f"{_key(key)}={MASK}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w.-]{1,40}", key) else MASK


def scrubbed(text: str) -> str:
    """A message of whatever origin: the urls in it are redacted, and the values of what is named like a password."""
    text = _URL.sub(lambda match: _in_message(match[0]), text)
    return _SECRET.sub(lambda match: f"{match['key']}{match['is']}{MASK}", text)


def _in_message(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if "@" not in rest or (scheme.lower() in _PATHS and rest.startswith("/")):
        return url  # no userinfo; options are looked at by their names
    head, _, tail = rest.rpartition("@")
    return f"{scheme}://{_userinfo(head)}@{tail}"
