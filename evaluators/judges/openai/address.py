"""Where a server is, and the client that reaches it from here: URL, proxies, certificates."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from evaluators.errors import ConfigError

DEFAULT_URL = "https://api.openai.com/v1"
VARIABLE = "OPENAI_BASE_URL"
_MOST_IN_A_LABEL = 63
_PLACE = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:]+)(?::\d*)?")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def where(base_url: str | None, flag: str) -> tuple[str, str]:
    """The URL to ask, and who named it: the flag, the variable, or nobody (empty).

    Raises:
        ConfigError: it is none that can be asked.
    """
    if base_url is not None:
        return checked(base_url, flag), flag
    if named := os.environ.get(VARIABLE, "").strip():
        return checked(named, VARIABLE), VARIABLE
    return DEFAULT_URL, ""


def checked(url: str, flag: str) -> str:
    """The URL without a slash at its end.

    Raises:
        ConfigError: no http(s)://HOST[:PORT]/PATH; says what is wrong, and shows no key that may stand in it.
    """
    url = url.strip()
    scheme, colon, rest = url.partition("://")
    public = re.split(r"[?#]", rest.rpartition("@")[2])[0]
    shown = f"{flag} {ascii(scheme + colon + public)[1:-1]}"
    form = "write http(s)://HOST[:PORT]/v1"
    if not all(sign >= "!" for sign in url):
        raise ConfigError(f"{shown}: holds a blank or a control sign; {form}")
    if not colon:
        example = f"http://{url.rstrip('/')}{'' if '/' in url else '/v1'}"
        complete = url[:1].isalnum() and "@" not in url and ":/" not in url
        raise ConfigError(f"{shown}: has no http:// or https://; {f'write {example}' if complete else form}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{shown}: {error}; {form}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{shown}: {form}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{shown}: {form}, without a name or key before the host")
    if parts.query or parts.fragment:
        raise ConfigError(f"{shown}: what follows ? belongs in --option extra_query={{...}}; {form}")
    if port == 0 or not _PLACE.fullmatch(parts.netloc) or not _can_be_host(parts.hostname) or not parts.path.isascii():
        raise ConfigError(f"{shown}: no server can have this address; {form}")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ConfigError(f"{shown}: leave /chat/completions out; it is added")
    return url.rstrip("/")


def _can_be_host(name: str) -> bool:
    if ":" in name or name.replace(".", "").isdigit():
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True
    try:
        labels = name.encode("idna").decode().rstrip(".").split(".")
    except UnicodeError:
        return False
    return all(
        0 < len(label) <= _MOST_IN_A_LABEL and label.replace("-", "").replace("_", "").isalnum() for label in labels
    )


def client(url: str, key: str, timeout_s: float) -> Any:
    """The SDK's client, without retries of its own.

    Raises:
        ConfigError: proxies or certificates of the environment that cannot be used; names the variables.
    """
    import openai

    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):  # the SDK sends them as headers
        if not all(" " <= sign <= "~" for sign in os.environ.get(name, "")):
            raise ConfigError(f"{name}: holds a sign that no header can; mend or unset it")
    parts = urlsplit(url)
    direct = parts.scheme == "http" and proxy_bypass(parts.hostname or "")
    try:
        # Its own retries would pass by our limits, our counts and our budget, and know of no other call. A proxy that
        # NO_PROXY spares this server is not even looked at.
        http = openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None
        return openai.AsyncOpenAI(
            api_key=key or "none", base_url=url, timeout=timeout_s, max_retries=0, http_client=http
        )
    except ImportError as error:
        names = _set(lambda name, value: name.lower().endswith("_proxy") and value.lower().startswith("socks"))
        raise ConfigError(
            f"{names}: a SOCKS proxy needs one more package: pip install socksio (or unset it, or set NO_PROXY)"
        ) from error
    except OSError as error:
        missing = _set(lambda name, value: name in _CERTIFICATES and not os.path.exists(value))
        names = missing or _set(lambda name, _: name in _CERTIFICATES)
        raise ConfigError(
            f"{names}: the certificates cannot be read: {error.strerror or 'no certificate in it'}"
        ) from error
    except Exception as error:
        names = _set(lambda name, _: name.lower().endswith("_proxy") and name.lower() != "no_proxy")
        raise ConfigError(f"{names or url}: no client can be made; write proxies as http://HOST:PORT") from error


def _set(chosen: Any) -> str:
    """Names of the variables; their values may hold passwords."""
    return ", ".join(sorted(name for name, value in os.environ.items() if chosen(name, value)))
