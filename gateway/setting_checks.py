"""Checks of settings' values: addresses, tokens that cannot be guessed, headers, origins, amounts, percentages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit

HTTP = ("http", "https")
REDIS = ("redis", "rediss", "redis+cluster", "unix")
REDIS_OPTIONS = frozenset(
    {
        *("db", "username", "password", "protocol", "client_name"),
        *("ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile"),
        *("ssl_password", "ssl_check_hostname", "ssl_ciphers"),
    }
)

TOKEN_LEAST, TOKEN_MOST = 16, 512
TELLING_LEAST = 8
"""The fewest letters and digits of a token that are hard to guess, as ``telling_characters`` counts them."""

TRIED_FIRST = re.compile(
    "administrator|changeme|password|passw0rd|tokencap|gateway|letmein|default|welcome|metrics|example|testing"
    "|secret|admin|token|qwerty|asdf|super|change|bearer|test|root|user|demo|pass|key|api|dev|the|my|me"
)

_HOST_NAME = re.compile(r"(?!-)[a-zA-Z0-9_-]{1,63}(?<!-)(\.(?!-)[a-zA-Z0-9_-]{1,63}(?<!-))*\.?")


def http_url(given: str, *, credentials: bool, query: bool = False, path: bool = True) -> str:
    """Return ``given`` if it is an HTTP address.

    Raises:
        ValueError: it is not an HTTP address, or has a part that would be ignored.
    """
    parts = _parts(given, HTTP, "http://HOST:PORT or https://HOST")
    if not credentials and "@" in parts.netloc:
        raise ValueError("it has a user name or password in it, which would not be sent")
    if not query and "?" in given:
        raise ValueError("it has a query, which would be ignored")
    if not path and parts.path not in ("", "/"):
        raise ValueError("it has a path, which would be ignored")
    return given


def redis_url(given: str) -> str:
    """Return ``given`` if it is ``embedded`` or an address of Redis.

    Raises:
        ValueError: it is neither, or has an option that would be ignored.
    """
    if given == "embedded":
        return given
    kinds = "embedded, redis://HOST:PORT/0, rediss://…, unix:///PATH or redis+cluster://HOST:PORT"
    parts = _parts(given, REDIS, kinds)
    if parts.scheme == "unix" and len(parts.path) < 2:
        raise ValueError("it names no socket, as unix:///run/redis.sock does")
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,9}", parts.path):
        raise ValueError("only the number of a database may follow the host")
    options = parse_qsl(parts.query, keep_blank_values=True)
    if unknown := sorted({name for name, _ in options} - REDIS_OPTIONS):
        raise ValueError(f"it has an option that has no effect: {unknown[0][:50]!r}")
    if any(name in {"db", "protocol"} and not value.isdecimal() for name, value in options):
        raise ValueError("its options db and protocol are numbers")
    return given


def database_url(given: str) -> str:
    """Return ``given`` if it is an address of a ledger.

    Raises:
        ValueError: it is not an address of a ledger.
    """
    kinds = "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
    if given.startswith(("sqlite:", "sqlite+")):
        if not re.match(r"sqlite(\+\w+)?:///[^/?]*[^?]", given):
            raise ValueError("it names no file, as sqlite:///PATH does")
        return given
    schemes = ("postgresql", *(f"postgresql+{driver}" for driver in ("psycopg", "psycopg2")))
    has_socket = re.match(r"postgresql(\+\w+)?://[^/?]*/[^?]*\?(.*&)?host=", given) is not None
    _parts(given, schemes, kinds, needs_host=not has_socket)
    return given


def secret_token(given: str) -> str:
    """Return ``given`` if it is a token of the right length that is hard to guess.

    Raises:
        ValueError: the length is wrong, the token can be guessed, or no header can carry it.
    """
    make = "make one with `openssl rand -hex 32`"
    if not TOKEN_LEAST <= len(given) <= TOKEN_MOST:
        raise ValueError(f"it has {TOKEN_LEAST} to {TOKEN_MOST} characters; {make}")
    if not re.fullmatch(r"[!-~]+", given):
        raise ValueError(f"it has letters, digits and signs of ASCII, and no spaces; {make}")
    if telling_characters(given) < TELLING_LEAST:
        raise ValueError(f"it can be guessed; {make}")
    return given


def telling_characters(given: str) -> int:
    """Return how many letters and digits of a text are hard to guess, 0 if fewer than 4 of them are different.

    Of a text that repeats only one repetition counts. Words that are tried first do not count. Of a run such as ``1234``
    or ``fedc`` the first two characters count, and of a repeated character, such as ``aaaa``, the first.
    """
    text = re.sub("[^a-z0-9]+", " ", TRIED_FIRST.sub(" ", _period(given.lower())))
    telling, step, before = 0, math.nan, ""
    for character in _period(text.replace(" ", "")):
        now = ord(character) - ord(before) if before else math.nan
        telling += not (now == step and abs(now) <= 1) and now != 0
        step, before = now, character
    return telling if len(set(text) - {" "}) >= TELLING_LEAST // 2 else 0


def _period(text: str) -> str:
    """Return the shortest beginning whose repetition is the text."""
    lengths = range(1, len(text) // 2 + 1)
    return next((text[:n] for n in lengths if (text[:n] * (len(text) // n + 1)).startswith(text)), text)


def _parts(given: str, schemes: Collection[str], kinds: str, *, needs_host: bool = True) -> SplitResult:
    """Return the parts of an address after checking each. Unless ``needs_host``, the host may be absent.

    Raises:
        ValueError: a part is invalid. The message does not repeat the address, which may contain a password.
    """
    if not given.isprintable() or any(character.isspace() for character in given):
        raise ValueError("an address has no spaces or control characters")
    try:
        parts = urlsplit(given)
    except ValueError as error:
        raise ValueError("it is no address") from error
    if parts.scheme not in schemes or not given.lower().startswith(f"{parts.scheme}://"):
        raise ValueError(f"it is an address such as {kinds}")
    if "#" in given:
        raise ValueError("it has a fragment, which would be ignored")
    if parts.scheme == "unix" or (not parts.netloc.rpartition("@")[2] and not needs_host):
        return parts
    _refuse_place(parts)
    return parts


def _refuse_place(parts: SplitResult) -> None:
    """Refuse an address whose host is absent or invalid, or whose port is invalid."""
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("its port is a number up to 65535") from error
    place = parts.netloc.rpartition("@")[2]
    if port == 0 or place.endswith(":"):
        raise ValueError("its port is a number from 1 to 65535")
    if not host:
        raise ValueError("it names no host")
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise ValueError("its host is no name of a host") from error
    if not place.startswith("[") and (len(ascii_host) > 253 or not _HOST_NAME.fullmatch(ascii_host)):
        raise ValueError("its host is no name of a host")


def origin(given: str) -> str:
    """Return ``given`` if it is an origin as browsers write it, or ``*``, which means all origins.

    Raises:
        ValueError: it is neither.
    """
    if given != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+", given, re.IGNORECASE):
        raise ValueError(f"{given} is no origin, such as https://app.example.com, nor *")
    return given


FRAMING = re.compile(
    r"host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-.*|accept-encoding|x-request-id"
)
"""Headers of a request to the upstream that the gateway sets itself."""


def upstream_header(given: str) -> str:
    """Return the name of a header that the upstream may be sent, in lower case.

    Raises:
        ValueError: it is not the name of a header, or is a header that the gateway sets itself.
    """
    name = _name_of_header(given)
    if FRAMING.fullmatch(name):
        raise ValueError(f"{name} is reserved for the gateway")
    return name


def upstream_headers(given: str) -> dict[str, str]:
    """Return the headers in a JSON object, by their names in lower case.

    Raises:
        ValueError: it is not such an object, or has a header that cannot be sent. The message repeats no value, which
            may be secret.
    """
    try:
        named = json.loads(given)
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, dict) or not all(isinstance(value, str) for value in named.values()):
        raise ValueError('it is a JSON object of texts, such as {"x-team": "blue"}')
    headers = {upstream_header(name): value for name, value in named.items()}
    if len(headers) != len(named):
        raise ValueError("a header comes twice")
    if wrong := sorted(name for name, value in headers.items() if not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", value)):
        raise ValueError(f"the value of {wrong[0]} cannot be sent in a header")
    return headers


HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,256}")
KEPT_HERE = re.compile(
    r"authorization|proxy-.*|cookie2?|.*api-key.*|host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect"
    r"|content-.*|accept|accept-encoding|x-request-id|idempotency-key|x-conversation-id|x-tokencap-.*"
    r"|openai-organization|openai-project|forwarded|x-forwarded-.*|x-real-ip|via"
)
"""Headers that no setting lets pass: they frame the request, are secrets, name an account, or are for this gateway."""


def passed_header(given: str) -> str:
    """Return the name of a caller's header that may be passed on, in lower case.

    Raises:
        ValueError: it is not the name of a header, or is a header that never passes.
    """
    name = _name_of_header(given)
    if KEPT_HERE.fullmatch(name):
        raise ValueError(f"{name} never passes")
    return name


def _name_of_header(given: str) -> str:
    name = given.lower()
    if not HEADER.fullmatch(name):
        raise ValueError(f"{given} is no name of a header")
    return name


ROLES = ("admin", "operator", "billing", "viewer")


def amounts_by_role(given: Collection[str]) -> dict[str, int]:
    """Return the amounts of roles, which are written as ``role=nano-units``.

    Raises:
        ValueError: an item has another form, its role is unknown, or a role comes twice.
    """
    found: dict[str, int] = {}
    for one in given:
        role, _, amount = one.partition("=")
        if role not in ROLES:
            raise ValueError(f"{role!r} is none of {', '.join(ROLES)}")
        if not re.fullmatch("[0-9]{1,15}", amount):
            raise ValueError(f"{role} is followed by = and nano-units, a whole number")
        if role in found:
            raise ValueError(f"{role} comes twice")
        found[role] = int(amount)
    return found


def percents(given: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``given`` if it is one to ten percentages from 1 to 100, in rising order.

    Raises:
        ValueError: it is not.
    """
    if not 1 <= len(given) <= 10 or list(given) != sorted(set(given)) or any(not 1 <= one <= 100 for one in given):
        raise ValueError("it is one to ten whole percents from 1 to 100, rising")
    return given
