"""Addresses and keys are checked before anything is sent."""

from __future__ import annotations

import pytest

from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.backends.endpoint.settings import check_key, read_key
from rlrf.engine_config import Client
from rlrf.errors import BackendError
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL

KEY = "sk-very-secret"


def test_the_key_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLRF_TEST_KEY", KEY)
    assert read_key("RLRF_TEST_KEY", "https://models.example/v1") == KEY


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLRF_TEST_KEY", raising=False)
    with pytest.raises(BackendError, match="'RLRF_TEST_KEY' is unset"):
        read_key("RLRF_TEST_KEY", "https://models.example/v1")


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} ", f"{KEY}\u00e9", ""])
def test_a_key_that_is_none_is_refused_without_showing_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="white space") as caught:
        EndpointGenerator("https://models.example/v1", MODEL, Client(), key=key)
    assert KEY not in str(caught.value)
    monkeypatch.setenv("RLRF_TEST_KEY", key or " ")
    with pytest.raises(BackendError, match="'RLRF_TEST_KEY' .*white space") as caught:
        read_key("RLRF_TEST_KEY", "https://models.example/v1")
    assert KEY not in str(caught.value)


def test_a_key_never_travels_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLRF_TEST_KEY", KEY)
    with pytest.raises(BackendError, match="'RLRF_TEST_KEY' would travel unencrypted"):
        read_key("RLRF_TEST_KEY", "http://models.example/v1")
    for base_urls in ("http://models.example/v1", ["https://models.example/v1", "http://models.example/v1"]):
        with pytest.raises(BackendError, match="unencrypted"):
            EndpointGenerator(base_urls, MODEL, Client(), key=KEY)
    for base_url in ("https://models.example/v1", "http://localhost:1/v1", "http://127.0.0.2/v1", "http://[::1]:1/v1"):
        check_key(KEY, base_url)
    EndpointGenerator("http://models.example/v1", MODEL, Client())


def test_a_key_is_shown_by_no_repr() -> None:
    generator = EndpointGenerator("https://models.example/v1", MODEL, Client(), key=KEY)
    assert KEY not in repr(generator) + repr(vars(generator)) + repr(generator.settings)


@pytest.mark.parametrize("base_urls", [[], ["http://h/v1", "http://h/v1/"]])
def test_servers_are_named_once_each(base_urls: list[str]) -> None:
    with pytest.raises(BackendError, match="base_url names"):
        EndpointGenerator(base_urls, MODEL, Client())


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "127.0.0.1:8000/v1",
        "ftp://host/v1",
        "http:///v1",
        "http://h/v1?key=1",
        "http://h/a b",
        "http://h:99999/v1",
        "http://a..b/v1",
        f"http://{'a' * 64}.example/v1",
        "http://[h/v1",
        "http://h/\r\nX: y",
    ],
)
def test_an_address_that_is_none(base_url: str) -> None:
    with pytest.raises(BackendError, match="base_url is"):
        EndpointGenerator(base_url, MODEL, Client())


def test_a_password_in_the_address_is_refused_without_showing_it() -> None:
    with pytest.raises(BackendError, match="bears a password") as caught:
        EndpointGenerator("https://me:hunter2@models.example/v1", MODEL, Client())
    assert "hunter2" not in str(caught.value)
