"""Where an endpoint is and how it is asked, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rlrf.errors import BackendError


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What EndpointGenerator was given; the key is part of no text that is made of it."""

    base_url: str
    model: str
    key: str | None = field(repr=False)
    concurrency: int
    request_timeout: float
    retries: int
    batch_rows: int
    flush_seconds: float

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise BackendError(f"concurrency is {self.concurrency!r}; an endpoint needs 1 or more requests in flight")
        if not self.request_timeout > 0:
            raise BackendError(f"request_timeout is {self.request_timeout!r}; a try needs more than 0 s")


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
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise BackendError(f"the environment variable {variable!r} holds white space or other characters no key has")
    url = urlsplit(base_url)
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        raise BackendError(
            f"base_url is {base_url!r}: the API key in {variable!r} would travel unencrypted; "
            "use https or a tunnel to 127.0.0.1, or leave api_key_env unset if the endpoint needs no key"
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
