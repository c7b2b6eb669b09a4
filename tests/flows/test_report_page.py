"""The report in a real browser, opened from disk, with texts that try to be more than text."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.report_page import Page, write_page
from rlrf.records import Completion, Prompt
from storage import reporting, rows
from storage.schema import MIGRATIONS
from storage.store import Store, insert, open_store
from tests import builders
from tests.builders import Ran
from tests.storage import builders as made

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
SWITCHES += ["--disable-background-networking", "--disable-component-update"]

HOSTILE = {
    "script": "<script>window.owned = 1; alert(1)</script>",
    "textarea": "</textarea></title></style><h1>owned</h1>",
    "image": '</script><img src=x onerror="window.owned = 1; alert(1)"><svg onload=alert(1)>',
    "jinja": "{{7*7}} {% raw %} ${7*7} {{ config.__class__ }}",
    "markdown": "[owned](javascript:alert(1)) ![x](http://127.0.0.1:1/x.png) # head",
    "terminal": "\x1b[31mred\x1b[0m \x1b]0;owned\x07",
    "override": "safe \u202egnp.exe",
    "nul": "before\x00after\u2028line",
    "entities": "&lt;b&gt; &amp; \"quoted\" 'single' <!-- -->",
    "chinese": "这是中文 🙂 naïve",
}
CANARY = "zx-held-out-canary-zx"


@pytest.fixture(scope="module")
def hostile(wheel: Ran, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A copy of the shared run's store with hostile prompts, responses, critiques and references in its first iteration."""
    store = _copy(wheel.store, tmp_path_factory.mktemp("report"))
    sets = store.query("FROM report_iterations WHERE run_id = ? AND iteration = 1", [wheel.run_id])[0]
    policy = store.value("SELECT policy_id FROM responses LIMIT 1")
    members: list[dict[str, Any]] = []
    for name, text in HOSTILE.items():
        prompt = Prompt(made.uid(name), f"source {text}", ({"role": "user", "content": f"{name} {text}"},), text, {})
        rows.add_prompts(store, [prompt])
        parent, child = made.uid(f"{name} parent"), made.uid(f"{name} child")
        for one, above, position in ((parent, None, 0), (child, parent, 1)):
            planned = {one: {"prompt_id": prompt.prompt_id, "parent_id": above, "position": position, "seed": 1}}
            common = {"gen_key": made.GEN, "policy_id": policy, "backend": "test", "run_id": wheel.run_id}
            said = Completion(
                one, f"{text} {'worse' if above is None else 'better'}", "length" if above else "stop", 5, 7
            )
            rows.add_results(store, [said], planned, common)
        members += [
            {"set_key": sets["prompts_key"], "member_id": prompt.prompt_id},
            {"set_key": sets["responses_key"], "member_id": parent},
            {"set_key": sets["refinements_key"], "member_id": child},
        ]
        made.judge(store, made.judgement(f"{name} parent", 0, 0, critique=text), judge_key=sets["judge_key"])
    held_out = Prompt(made.uid("canary"), "exam", ({"role": "user", "content": CANARY},), CANARY, {})
    rows.add_prompts(store.held_out(), [held_out])
    with store.connect() as connection:
        insert(connection, "members", members)
        dropped = {"source": HOSTILE["image"], "row": 1, "prompt_id": made.uid("x"), "reason": HOSTILE["script"]}
        insert(connection, "dropped_prompts", [dropped])
        insert(
            connection,
            "unpaired",
            [{"pair_set": sets["pair_set"], "prompt_id": made.uid("jinja"), "reason": "{{7*7}}"}],
        )
        connection.execute("UPDATE decisions SET reason = ?, decided_by = ?", [HOSTILE["image"], HOSTILE["script"]])
        connection.execute("UPDATE policies SET name = ? WHERE name = 'wheel-2'", [HOSTILE["image"]])
        connection.execute(
            "UPDATE evaluation_aspects SET aspect = ? WHERE aspect = 'answer'", [f"$a^{HOSTILE['script']}"]
        )
    return store, wheel.run_id


@pytest.fixture(scope="module")
def page(hostile: tuple[Store, str]) -> Page:
    return write_page(*hostile)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        started.close()


class Opened:
    """A page in a tab of its own, with everything that it must not do."""

    def __init__(self, browser: Browser, path: Path, width: int = 1200, address: str = "") -> None:
        self.bad: list[str] = []
        self.tab: Tab = browser.new_page(viewport={"width": width, "height": 800})
        self.tab.on("console", lambda said: self.bad.append(f"console: {said.text}"))
        self.tab.on("pageerror", lambda error: self.bad.append(f"error: {error}"))
        self.tab.on("dialog", lambda dialog: (self.bad.append("dialog"), dialog.dismiss()))
        self.tab.on("request", lambda request: self._asked(request.url, path))
        self.tab.goto(f"{path.as_uri()}{address}")
        self.tab.wait_for_selector("body[data-ready]")

    def _asked(self, url: str, path: Path) -> None:
        if not url.startswith((path.as_uri(), "data:")):
            self.bad.append(f"request: {url}")

    def count(self) -> int:
        return int(re.sub(r"\D", "", (self.tab.text_content("#found") or "").split(" of ")[0].split(" prompt")[0]) or 0)

    def search(self, text: str) -> int:
        self.tab.fill("#search", text)
        return self.settled()

    def settled(self) -> int:
        self.tab.wait_for_timeout(200)  # typing is waited for 120 ms
        return self.count()


@pytest.mark.parametrize("width", [1200, 400])
def test_hostile_texts_are_shown_and_do_nothing(browser: Browser, page: Page, width: int) -> None:
    opened = Opened(browser, page.path, width)
    tab = opened.tab
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for name, text in HOSTILE.items():
        assert opened.search(made.uid(name)) == 1, name
        tab.click("#list h3 button")
        tab.click("#list .response details summary")
        plain = text.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\x00", "\\x00")
        plain = plain.replace("\u202e", "\\u202e").replace("\u2028", "\\u2028")
        assert plain in (tab.text_content("#list .response .text") or ""), name
        assert plain in (tab.text_content("#list .ratings") or ""), name
        assert tab.text_content("#list ins") == "better", "the word diff"
        assert (
            tab.evaluate("document.querySelectorAll('#list img, #list script, #list svg, #list a[href^=java]').length")
            == 0
        )
    assert tab.evaluate("[typeof window.owned, document.documentElement.scrollWidth]") == ["undefined", width]
    assert tab.evaluate("document.querySelectorAll('h1, body img, body > script').length") == 2, "own head and script"
    assert HOSTILE["image"] in (tab.text_content("#results") or ""), "who decided and why"
    assert "{{7*7}}" in (tab.text_content("#funnel") or "")
    assert opened.bad == []
    tab.close()


def test_search_filters_links_and_keys(browser: Browser, page: Page) -> None:
    opened = Opened(browser, page.path)
    tab = opened.tab
    everything = opened.count()
    assert everything == page.prompts == page.of_prompts
    assert opened.search("zx-nothing-has-this") == 0
    assert opened.search("") == everything
    tab.select_option("#iteration", "2")
    assert 0 < opened.settled() < everything
    tab.click("button[type=reset]")
    assert opened.settled() == everything
    for name in ("truncated", "unrated"):
        tab.check(f"#{name}")
        assert opened.settled() == len(HOSTILE), name
        tab.uncheck(f"#{name}")
    tab.check("#paired")
    paired = opened.settled()
    tab.uncheck("#paired")
    tab.check("#unpaired")
    assert paired + opened.settled() == everything
    tab.click("button[type=reset]")
    tab.select_option("#outcome", "win")
    assert 0 < opened.settled() < everything
    tab.select_option("#outcome", "")
    tab.fill("#low", "5")
    assert opened.settled() == 0
    tab.click("button[type=reset]")
    opened.settled()
    assert tab.locator("#list article").count() == 20
    tab.click("#next")
    assert tab.locator("#list article").count() == everything - 20
    tab.keyboard.press("[")
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    assert tab.locator("#list h3 button").nth(1).get_attribute("aria-expanded") == "true"
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    address = tab.get_attribute("#list .body:not([hidden]) .meta a", "href")
    assert address is not None
    tab.click("#list .body:not([hidden]) .meta a")
    tab.wait_for_function("document.querySelectorAll('#list article').length === 1")
    fresh = Opened(browser, page.path, address=address)
    assert fresh.tab.locator("#list article").count() == 1
    assert fresh.tab.get_attribute("#list h3 button", "aria-expanded") == "true"
    fresh.tab.click("#found a")
    fresh.tab.wait_for_function("document.querySelectorAll('#list article').length === 20")
    assert opened.bad == fresh.bad == []


def test_nothing_held_out_is_a_sample(page: Page, hostile: tuple[Store, str]) -> None:
    store, run_id = hostile
    text = page.path.read_text(encoding="utf-8")
    samples = _samples(page.path)
    assert len(samples) == page.prompts
    assert CANARY not in text
    assert CANARY not in json.dumps(samples)
    assert not {one["id"] for one in samples} & {row["prompt_id"] for row in store.query("FROM held_out.prompts")}
    assert reporting.sizes(store, run_id) == (page.of_prompts, page.of_responses)


def test_the_frame_says_what_the_store_says(page: Page, hostile: tuple[Store, str]) -> None:
    text = page.path.read_text(encoding="utf-8")
    assert "Better." in text
    assert "default-src &#39;none&#39;" in text
    assert not re.search(r"\sstyle=|\son\w+=\"", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
    ids = re.findall(r"\bid=\"([^\"]+)\"", text)
    assert len(ids) == len(set(ids))
    for view in ("iteration_summary", "report_funnel", "report_losses", "report_stages", "judge_health", "pair_audits"):
        assert view in text
        assert hostile[0].value(f"SELECT count(*) FROM {view}") > 0, "it can be queried"


def test_samples_are_drawn_and_said_where_not_all_are_shown(hostile: tuple[Store, str], tmp_path: Path) -> None:
    few, again = (write_page(*hostile, to=tmp_path / name, most=12) for name in ("few.html", "again.html"))
    assert 0 < few.responses <= 12 < few.of_responses
    assert f"{few.prompts:,} of {few.of_prompts:,} prompts and {few.responses:,} of" in few.path.read_text(
        encoding="utf-8"
    )
    assert _samples(few.path) == _samples(again.path)
    none = write_page(*hostile, to=tmp_path / "none.html", most=0)
    assert f"0 of {none.of_prompts:,} prompts" in none.path.read_text(encoding="utf-8")


def test_a_run_that_was_stopped_before_training(browser: Browser, paired: Ran, tmp_path: Path) -> None:
    store = _copy(paired.store, tmp_path)
    page = write_page(store)
    text = page.path.read_text(encoding="utf-8")
    assert "No policy was trained." in text
    assert "This run was stopped" in text
    assert "Iteration 1 was not finished" in text
    assert page.responses == store.value("SELECT count(*) FROM responses") > 0
    assert Opened(browser, page.path).bad == []


def test_a_run_that_was_killed_and_one_that_hardly_began(browser: Browser, paired: Ran, tmp_path: Path) -> None:
    store = _copy(paired.store, tmp_path)
    with store.connect() as connection:
        connection.execute("UPDATE runs SET status = 'killed', reason = 'its process ended without a word'")
        for table in ("evaluations", "iterations", "judgements", "ratings", "members", "pairs", "unpaired", "receipts"):
            connection.execute(f"DELETE FROM {table}")
    page = write_page(store, to=tmp_path / "killed.html")
    assert "This run was killed: its process ended" in page.path.read_text(encoding="utf-8")
    assert page.responses == store.value("SELECT count(*) FROM responses"), "rows that are in no set yet"
    opened = Opened(browser, page.path)
    opened.tab.check("#unrated")
    assert opened.settled() == page.prompts
    with store.connect() as connection:
        for table in ("responses", "decisions", "starts", "policies", "keys"):
            connection.execute(f"DELETE FROM {table}")
    bare = Opened(browser, write_page(store, to=tmp_path / "bare.html").path)
    assert "No samples" in (bare.tab.text_content("#found") or "") or bare.count() == 0
    assert opened.bad == bare.bad == []


def test_a_store_of_an_older_version(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.duckdb")
    with store.connect() as connection:
        for migration in MIGRATIONS[:2]:
            connection.execute(migration)
        connection.execute("INSERT INTO meta VALUES ('version', '2'), ('store_id', 'x')")
        run = {"run_id": made.RUN, "name": "old", "config": "{}", "status": "completed", "host": "h", "pid": 1}
        insert(connection, "runs", [run])
    said = builders.rlrf("report", tmp_path)
    assert said.code == 0, said.err
    assert "0 responses" in said.out
    assert "Nothing was evaluated." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_that_is_not_there_is_explained(hostile: tuple[Store, str], tmp_path: Path) -> None:
    said = builders.rlrf("report", hostile[0].path, "--run", "zz")
    assert (said.code, "no run whose id starts with 'zz'" in said.err) == (1, True)
    assert builders.rlrf("report", tmp_path).code == 1


def test_many_aspects_and_a_long_text(browser: Browser, hostile: tuple[Store, str], tmp_path: Path) -> None:
    store = _copy(hostile[0], tmp_path)
    judged = store.query("SELECT response_id, judge_key FROM judgements LIMIT 40")
    with store.connect() as connection:
        more = [
            row
            | {"aspect": f"aspect {n} " + "w" * 60, "place": 10 + n, "rating": 1.0, "level": 1.0, "critique": "c " * 40}
            for n in range(25)
            for row in judged
        ]
        insert(connection, "ratings", more)
        connection.execute(
            "UPDATE responses SET text = repeat('word', 50000) WHERE response_id = ?", [judged[0]["response_id"]]
        )
    began = time.monotonic()
    opened = Opened(browser, write_page(store, hostile[1]).path, 400)
    assert time.monotonic() - began < 60
    opened.search(str(store.value("SELECT prompt_id FROM responses WHERE response_id = ?", [judged[0]["response_id"]])))
    opened.tab.click("#list h3 button")
    assert opened.tab.evaluate("document.documentElement.scrollWidth") == 400
    assert opened.bad == []


def _copy(store: Store, folder: Path) -> Store:
    shutil.copy(store.path, folder / "store.duckdb")
    return open_store(folder / "store.duckdb")


def _samples(path: Path) -> list[dict[str, Any]]:
    found = re.search(r'id="data">([^<]*)<', path.read_text(encoding="utf-8"))
    assert found is not None
    lines = zlib.decompress(base64.b64decode(found[1]), wbits=31).decode("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]
