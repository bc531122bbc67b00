"""Masks the operator's own data in an upstream's error messages: addresses, paths, keys, accounts.

Everything else reaches the caller unchanged, because it tells the caller what to change. So each rule here matches one
form, and `tests/gateway/serving/upstream/test_error_redaction.py` has examples of what each rule masks and leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

MASK = "…"
READ_MOST, MESSAGE_MOST, NAME_MOST = 3_000, 2_000, 200
"""The most characters of an upstream's message that are read, of that message as passed on, and of a code or a name."""

DOCUMENTATION = (
    *("openai.com", "anthropic.com", "claude.com", "json-schema.org", "w3.org", "ietf.org", "rfc-editor.org"),
    *("schema.org", "huggingface.co", "github.com", "vllm.ai", "sgl-project.github.io", "ollama.com", "pydantic.dev"),
    *("python.org", "mozilla.org", "wikipedia.org", "readthedocs.io", "microsoft.com", "google.com", "mistral.ai"),
)
"""Domains whose pages explain errors: neither the domains nor the pages reveal anything of the operator."""

INTERNAL = r"(?:internal|local|localdomain|svc|lan|corp|intranet|home|private|consul|test|cluster)"
INFRASTRUCTURE = re.compile(
    r"(?:^|[.-])(?:gpu|vllm|sglang|ollama|tgi|triton|llm|infer\w*|models?|node|worker|pod|k8s|prod|staging|internal)\d*(?=$|[.-])"
)
SERVERS = (
    r"(?:localhost|models?|vllm|sglang|sgl|ollama|llm|llama|llamacpp|tgi|triton|gpu|inference|upstream|backend|server"
    r"|proxy|worker|redis|valkey|postgres|db|api|gateway|envoy|nginx|haproxy|litellm|router|engine|host)"
)
FILES = r"(?:py|pyc|js|ts|tsx|jsx|json|jsonl|c|cc|cpp|cu|h|go|rs|java|rb|txt|md|yaml|yml|toml|html|so|log|sh|lua)"
WEIGHTS = r"(?:safetensors|gguf|bin|pt|pth|onnx|model|jinja|sock|socket|log|conf|cfg|toml|yaml|pem|key|crt|so|py|json)"

ROOTS = (
    r"(?:srv|home|root|usr|opt|var|etc|tmp|mnt|proc|dev|sys|boot|media|nix|Users|Volumes|Library|private|snap|scratch"
    r"|lustre|gpfs|nfs|efs|dbfs|kaggle|vllm-workspace|sgl-workspace|workspaces?|workdir|checkpoints?|huggingface"
    r"|hdd|ssd|nvme\d*|disk\d*)"
)
AMBIGUOUS_ROOTS = (
    r"(?:data|models?|app|apps|config|run|code|work|lib|lib64|bin|content|storage|weights|cache|secrets|export|host)"
)
"""Words that begin a path of files, and also a path within a body or a route; a number after such a word is an index."""

SEGMENTS = r"(?:/[^\s\"'`<>|,;:()\[\]{}/]*)"

PRIVATE = re.compile(
    "|".join(
        (
            # Keys and accounts.
            r"(?<![\w-])sk-(?=[\w*.…-]*[\d*…])[\w*.…-]{8,}",
            r"\b(?:org|user)-(?=[A-Za-z]*\d+[A-Za-z])[A-Za-z0-9]{8,}(?![\w-])",
            r"\bproj_(?=[A-Za-z]*\d+[A-Za-z])[A-Za-z0-9]{8,}(?![\w-])",
            r"\breq_(?=[A-Za-z]*\d)[A-Za-z0-9]{12,}(?![\w-])",
            r"\b(?:hf|gsk|gh[pousr]|xai|tc|whsec|AKIA|AIza)[-_]?(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}",
            r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
            r"(?<![\w-])[\w-]{2,80}\*{3,}[\w-]*",
            r"\b(?:Bearer|Basic) (?=[\w~+/*=-]*(?:[\d*=]|\.\w))[\w.~+/*=-]{8,}",
            r"\b(?:api[-_]?key|access[-_]?key|token|secret|passw(?:or)?d|sig(?:nature)?)=[^\s&\"',;)]{6,}",
            # Paths of files; a quoted path may have spaces.
            rf"(?<=[\"'`])(?:/{ROOTS}|/{AMBIGUOUS_ROOTS}(?!/\d+(?:/|[\"'`])))/[^\"'`\n]*(?=[\"'`])",
            rf"(?<![\w./:<>)\]*\\-])(?<!GET )(?<!POST )/{ROOTS}{SEGMENTS}*(?![\w])",
            rf"(?<![\w./:<>)\]*\\-])(?<!GET )(?<!POST )/{AMBIGUOUS_ROOTS}(?!/\d+(?:/|\b)){SEGMENTS}+",
            rf"(?<![\w./:<>-])/[\w.-]+{SEGMENTS}*\.{WEIGHTS}\b",
            r"(?<![\w/])~[\w-]*/[^\s\"'`<>|,;)]+",
            r"\bunix:[^\s\"'),]+",
            r"(?<![\w])[A-Za-z]:(?:\\{1,2}|/)[\w$.-]{2,}(?:[\\/]+[\w$.+-]+)*",
            r"(?<![\\\w])\\{2,4}[A-Za-z0-9][\w.$-]+\\{1,2}[\w$.-]{2,}(?:\\{1,2}[\w$.-]+)*",
            # Hosts, as the errors of clients have them.
            r"\b(?:host(?:name)?|server|peer|addr(?:ess)?)=['\"]?[\w.:-]+['\"]?(?:, *port=\d+)?",
            r"\bport[ =]\d{2,5}\b",
            r"\bhost(?:name)?:? ['\"`]?(?=[\w-]*[\d.-]\w)[\w.-]+(?::\d+)?",
            r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)(?::\d+|['\"]?, *\d{2,5}\b)?",
            rf"(?<![\w.@/-])[\w-]+(?:\.[\w-]+)+\.{INTERNAL}\b(?::\d+)?",
            rf"(?<![\w.@/-])[\w-]*[\d-][\w-]*\.{INTERNAL}\b(?::\d+)?",
            rf"(?<![\w.@/-])[\w-]+(?:\.[\w-]+)*\.(?!{FILES}:)[A-Za-z]{{2,}}:\d{{2,5}}\b",
            rf"(?<![\w.@/-]){SERVERS}:\d{{2,5}}(?![\w.])",
            r"(?<![\w.@/-])(?=[A-Za-z][\w-]*[\d-])[A-Za-z][\w-]*:(?:80|443|[1-9]\d{3,4})(?![\w.])",
            r"(?<![\w-])[a-z][a-z0-9-]{0,60}-[0-9a-f]{8,10}-[a-z0-9]{5}\b",
        )
    )
)
URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s\"'`<>|)\]}\[]*\[[\da-fA-F:.%]+\])?[^\s\"'`<>|)\]}]*", re.ASCII)
ENDS_SENTENCE = ".,;:!?"
IPV6 = re.compile(
    r"\[(?P<boxed>[\da-fA-F:.]*::[\da-fA-F:.]*|(?:[\da-fA-F]{1,4}:){7}[\da-fA-F]{1,4})(?:%\w+)?\](?::\d+)?"
    r"|(?<![\w:.\[])(?P<bare>(?=[\da-fA-F:]*\d)[\da-fA-F]{1,4}:[\da-fA-F:]*:[\da-fA-F]*)(?:%\w+)?(?![\w:])"
)
API_PATH = re.compile(r"/(?:v\d+|api|generate|invocations|chat|completions|metrics|health|tokenize)(?:/|$)")


@dataclass(frozen=True, slots=True)
class House:
    """The operator's own names: the hosts that this gateway connects to, and the keys that it sends there."""

    hosts: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, urls: Iterable[str | None], *keys: str | None) -> House:
        hosts = (urlsplit(url).hostname for url in urls if url is not None)
        return cls(frozenset(host for host in hosts if host), tuple(key for key in keys if key))

    def has(self, host: str) -> bool:
        """Return whether a host is the operator's, or shares a domain with such a host."""
        return host in self.hosts or any(_domain(own) == _domain(host) for own in self.hosts if "." in own)


NOBODY = House()


def discreet(message: str, house: House = NOBODY) -> str:
    """Return an upstream's message with the operator's own data masked."""
    text = message[:READ_MOST]
    for key in house.keys:
        text = _without_key(text, key)
    text = URL.sub(lambda match: _url(match[0], house), text)
    text = IPV6.sub(_address, text)
    for host in sorted(house.hosts, key=len, reverse=True):
        text = _without_host(text, host)
    return PRIVATE.sub(MASK, text)[:MESSAGE_MOST]


def discreet_name(name: str, house: House = NOBODY) -> str | None:
    """Return a code or the name of a field, or None if it is too long or a part of it would be masked."""
    return name if len(name) <= NAME_MOST and discreet(name, house) == name else None


def renamed(message: str, model: str, as_called: str) -> str:
    """Return a message with the caller's name of the model in place of the upstream's."""
    if model == as_called:
        return message
    return re.sub(rf"(?<![\w./-]){re.escape(model)}(?![\w/-]|\.\w)", lambda _: as_called, message)


def _url(url: str, house: House) -> str:
    """Return a public URL unchanged, and the mask for any other; the punctuation after the URL stays."""
    bare = url.rstrip(ENDS_SENTENCE)
    return (bare if _is_public(bare, house) else MASK) + url[len(bare) :]


def _is_public(url: str, house: House) -> bool:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme.lower() not in ("http", "https") or parts.username is not None or port is not None:
        return False
    if host in house.hosts or re.fullmatch(r"[\d.]+|.*:.*", host) or "." not in host:
        return False
    if any(host == domain or host.endswith("." + domain) for domain in DOCUMENTATION):
        return not host.startswith("api.")
    is_internal = re.search(rf"\.{INTERNAL}$", host) or INFRASTRUCTURE.search(host) or API_PATH.search(parts.path)
    return not is_internal and not house.has(host)


def _domain(host: str) -> str:
    """Return the domain of a host, which the hosts of one operator share: its last two labels."""
    return ".".join(host.split(".")[-2:])


def _without_host(text: str, host: str) -> str:
    """Mask a host of the operator, and hosts of its domain. A host that is one word is masked only before a port."""
    is_word = re.fullmatch(r"[A-Za-z]+", host) is not None
    port = r":\d+" if is_word else r"(?::\d+)?"
    domain = re.escape(_domain(host)) if host.count(".") >= 2 and not _explains(host) else None
    others = rf"|(?<![\w@.-])(?:[\w-]+\.)+{domain}(?::\d+)?" if domain else ""
    return re.sub(rf"(?<![\w.-]){re.escape(host)}{port}(?![\w-]|\.\w){others}", MASK, text, flags=re.IGNORECASE)


def _explains(host: str) -> bool:
    return _domain(host) in DOCUMENTATION or re.fullmatch(r"[\d.]+", host) is not None


def _without_key(text: str, key: str) -> str:
    """Mask the key, and any piece that is long enough to identify it."""
    if len(key) < 6:
        return text
    text = re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", MASK, text)
    if len(key) < 20:
        return text
    pieces = {key[start : start + 10] for start in range(len(key) - 9)}
    return re.sub(r"[\w-]{10,}", lambda match: MASK if any(part in match[0] for part in pieces) else match[0], text)


def _address(match: re.Match[str]) -> str:
    """Mask an IPv6 address, but not a slice in code, such as ``x[::1]``, which looks much like an address."""
    address = match["boxed"] or match["bare"]
    try:
        IPv6Address(address)
    except ValueError:
        return match[0]
    is_slice = match["boxed"] is not None and match.start() > 0 and match.string[match.start() - 1].isalnum()
    return match[0] if is_slice else MASK
