"""Where an endpoint is and how it is asked, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rlrf.engine_config import Client
from rlrf.errors import BackendError

BACKLOG = 4096
"""Answers that may wait to be made durable, beside the requests in flight, unless something else is asked for."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What EndpointGenerator was given; the key is part of no text that is made of it."""

    base_urls: tuple[str, ...]
    model: str
    key: str | None = field(repr=False)
    asking: Client
    batch_rows: int
    backlog: int
    flush_seconds: float

    @property
    def place(self) -> str:
        """The endpoint's name in errors: its address, or those of all servers."""
        return f"endpoint{'s' * (len(self.base_urls) > 1)} {', '.join(map(repr, self.base_urls))}"


def checked_urls(base_urls: Sequence[str] | str) -> tuple[str, ...]:
    """One or several addresses, each once. Raises BackendError."""
    urls = tuple(map(checked_url, [base_urls] if isinstance(base_urls, str) else base_urls))
    if not urls:
        raise BackendError("base_url names no address; give one such as 'http://127.0.0.1:8000/v1'")
    for url in urls:
        if urls.count(url) > 1:
            raise BackendError(f"base_url names {url!r} twice; name each server once")
    return urls


def checked_url(base_url: str) -> str:
    """An absolute http(s) address without its last slash. Raises BackendError."""
    remedy = "give an address such as 'http://127.0.0.1:8000/v1'"
    try:
        url = urlsplit(base_url)
        _ = url.port, (url.hostname or "").encode("idna")  # both are read only to see that they can be
    except ValueError as error:
        raise BackendError(f"base_url is {base_url!r} ({error}); {remedy}") from error
    is_plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if not is_plain or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise BackendError(f"base_url is {base_url!r}; {remedy}")
    if "@" in url.netloc:
        raise BackendError(
            f"base_url for host {url.hostname!r} bears a password; name a variable by api_key_env instead"
        )
    return base_url.rstrip("/")


def read_key(variable: str, base_url: str) -> str:
    """The API key in an environment variable. Raises BackendError, also where it would travel unencrypted."""
    key = os.environ.get(variable, "")
    if not key:
        raise BackendError(f"the environment variable {variable!r} is unset or empty; put the endpoint's API key in it")
    check_key(key, base_url, f"the API key in {variable!r}")
    return key


def check_key(key: str, base_url: str, name: str = "the API key") -> None:
    """See that a key is one, and that it travels encrypted or not at all. Raises BackendError, which calls it `name`."""
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        raise BackendError(f"{name} is empty, or holds white space or other characters that no key has; correct it")
    url = urlsplit(base_url)
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        raise BackendError(
            f"base_url is {base_url!r}: {name} would travel unencrypted; "
            "use https or a tunnel to 127.0.0.1, or give no key if the endpoint needs none"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
