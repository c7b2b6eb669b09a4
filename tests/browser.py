"""A real Chromium for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Page:
    """A page that remembers what went wrong on it: errors on its console, exceptions, dialogs, requests beyond loopback."""

    def __init__(self, page: Any) -> None:
        self._page, self.errors, self.requests = page, list[str](), list[str]()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self._console(message))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message: Any) -> None:
        # A missing resource of Prefect's own pages is not an error of ours.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._page, name)


@contextmanager
def chromium(width: int = 1200, height: int = 900, **options: Any) -> Iterator[Page]:
    """A page of a browser with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(Path(str(CHROMIUM))), args=list(QUIET))
        try:
            yield Page(browser.new_page(viewport={"width": width, "height": height}, **options))
        finally:
            browser.close()
