"""What becomes of responses when a server misbehaves, as a Markdown table: `python -m benchmarks.faults`.

Each case plans 8 responses to each of 8 prompts, asks a real HTTP server that misbehaves on command through
EndpointGenerator, and commits every batch to a DuckDB store. Then the same plan is run once more against a server that
behaves, as a rerun does: what the store has is not asked for again. A planned response that the store lacks then is
lost; one that came out of the client twice, or was stored twice, is doubled.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.engine_config import Client
from rlrf.errors import BackendError
from rlrf.exploring import Planned, plan_responses
from rlrf.fingerprints import content_id
from rlrf.records import Completion, Failure, Prompt, Request, Sampling
from storage.rows import add_prompts, add_results, existing
from storage.store import Store, open_store
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL, MisbehavingServer

PROMPTS, RESPONSES = 8, 8
KEY = content_id("benchmark", "faults")
COMMON = {"gen_key": KEY, "policy_id": KEY, "backend": "endpoint", "run_id": KEY}
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"rating": {"enum": [-1, 0, 1]}},
        "required": ["rating"],
        "additionalProperties": False,
    }
)


@dataclass(frozen=True)
class Case:
    """One way to misbehave: the server's command per prompt, its settings, and the client's.

    `script` gets the servers once the first batch is under way, in a thread of its own.
    """

    name: str
    command: str = "ok"
    command_of_first: str | None = None
    server: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    servers: int = 1
    client: dict[str, Any] = field(default_factory=dict)
    schema: str | None = None
    script: Callable[[Sequence[MisbehavingServer]], None] | None = None


@dataclass(frozen=True)
class Played:
    """What a case came to."""

    said: str
    planned: int
    stored: int
    truncated: int
    failed: Counter[str]
    left: int
    after_rerun: int
    doubled: int
    seconds: float

    @property
    def lost(self) -> int:
        """Planned responses that a rerun did not bring either."""
        return self.planned - self.after_rerun


def come_back(servers: Sequence[MisbehavingServer]) -> None:
    """The first server listens again, half a second after its death."""
    servers[0].dead.wait()
    time.sleep(0.5)
    servers[0].listen()


CASES = (
    Case("none"),
    Case("429 with Retry-After", "429,ok", set={"retry_after": "0.3"}),
    Case("503, without a word on when", "503,ok", set={"retry_after": ""}),
    Case("500 once", "500,ok"),
    Case("500 for ever, one prompt", command_of_first="500,500,ok"),
    Case("hang", "hang,ok", client={"request_timeout": 0.5}),
    Case("hang for ever, one prompt", command_of_first="hang,hang,ok", client={"request_timeout": 0.5}),
    Case("connection cut in the middle of the body", "cut,ok"),
    Case("wrong n in a group", "wrong_n,ok"),
    Case("wrong n always, one prompt", command_of_first=",".join(["two_choices"] * 9) + ",ok"),
    Case("n refused", server={"most_choices": 1}),
    Case("invalid JSON once", "invalid_json,ok"),
    Case("invalid JSON always, one prompt", command_of_first=",".join(["invalid_json"] * 9) + ",ok"),
    Case("one choice aborted", "abort,ok"),
    Case("one choice empty", "empty,ok"),
    Case("one choice without content", "null_content,ok"),
    Case("max_tokens ignored by one choice", "too_many_tokens,ok"),
    Case("wrong model", server={"models": ("another",)}),
    Case("wrong key", server={"api_key": "secret"}),
    Case("slow first byte", "slow"),
    Case("death in the middle, and return", set={"die_after_answers": 2}, client={"concurrency": 2}, script=come_back),
    Case(
        "death in the middle for good", set={"die_after_answers": 2}, client={"concurrency": 1, "request_timeout": 1.0}
    ),
    Case("death of one of two replicas", set={"die_after_answers": 2}, servers=2, client={"concurrency": 1}),
    Case("guidance ignored", server={"guides": False}, schema=SCHEMA),
    Case("guidance ignored after the probe, one choice", "unguided,ok", schema=SCHEMA),
    Case("guided JSON cut by max_tokens, one choice", "cut_json", schema=SCHEMA),
)


def play(case: Case, folder: Path, chats: int = PROMPTS) -> Played:
    """Run a case and its rerun in a store of its own."""
    store = open_store(folder / "store.duckdb")
    prompts = [_prompt(case, i) for i in range(chats)]
    add_prompts(store, prompts)
    plan, seen = plan_responses(KEY, prompts, RESPONSES), Counter[str]()
    with ExitStack() as stack:
        servers = [stack.enter_context(MisbehavingServer(**case.server)) for _ in range(case.servers)]
        for name, value in case.set.items():
            setattr(servers[0], name, value)
        script = threading.Thread(target=case.script or len, args=(servers,))
        script.start()
        started = time.perf_counter()
        said, failed = run(store, plan, servers, case, seen)
        seconds = time.perf_counter() - started
        script.join()
        stored, truncated = _counts(store)
        left = len(plan) - stored - failed.total()
    with MisbehavingServer() as server:
        server.asked.update({prompt.messages[0]["content"]: 99 for prompt in prompts})  # past all commands: it behaves
        run(store, plan, [server], case, seen)
    again = sum(count - 1 for count in seen.values())
    doubled = again + int(store.value("SELECT count(*) - count(DISTINCT response_id) FROM responses"))
    return Played(said, len(plan), stored, truncated, failed, left, _counts(store)[0], doubled, seconds)


def run(
    store: Store, plan: Sequence[Planned], servers: Sequence[MisbehavingServer], case: Case, seen: Counter[str]
) -> tuple[str, Counter[str]]:
    """Ask for what the store lacks; returns the error, if any, and the failures by reason. `seen` counts rows."""
    have = existing(store, [one.response_id for one in plan])
    missing = [one for one in plan if one.response_id not in have]
    requests = [Request(one.response_id, one.messages, one.seed, case.schema) for one in missing]
    planned = {
        one.response_id: {name: getattr(one, name) for name in ("prompt_id", "parent_id", "position", "seed")}
        for one in missing
    }
    asking = Client.model_validate({"concurrency": 4, "request_timeout": 5.0, "retries": 1, **case.client})
    generator = EndpointGenerator([server.base_url for server in servers], MODEL, asking, batch_rows=16)
    failed, examples = Counter[str](), {}
    said = "nothing"
    try:
        for batch in generator.generate(requests, Sampling()):
            add_results(store, batch, planned, COMMON)
            seen.update(row.request_id for row in batch if isinstance(row, Completion))
            for row in batch:
                if isinstance(row, Failure):
                    failed[row.reason] += 1
                    examples.setdefault(row.reason, row.detail)
        if failed:
            said = "; ".join(f"{failed[reason]} x {reason} ({examples[reason][:70]})" for reason in failed)
    except BackendError as error:
        said = f"BackendError: {error}"
    for server in servers:
        address = server.base_url.removeprefix("http://").removesuffix("/v1")
        port = address.rpartition(":")[2]
        said = said.replace(server.base_url, "URL").replace(address, "HOST").replace(port, "PORT")
    return said, failed


def _prompt(case: Case, i: int) -> Prompt:
    command = case.command_of_first if i == 0 and case.command_of_first else case.command
    text = f"{command}: question {i}"
    return Prompt(content_id("prompt", text), "faults", ({"role": "user", "content": text},))


def _counts(store: Store) -> tuple[int, int]:
    sql = "SELECT count(*) AS stored, count(*) FILTER (finish_reason = 'length') AS truncated FROM responses"
    (row,) = store.query(sql)
    return row["stored"], row["truncated"]


def main() -> None:
    """Print the table, and fail where a row is lost or doubled."""
    heads = (
        "behaviour",
        "what the user sees",
        "planned",
        "stored",
        "failed",
        "left",
        "after a rerun",
        "lost",
        "doubled",
        "s",
    )
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    faultless = True
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            one = play(case, Path(folder))
        faultless = faultless and one.lost == one.doubled == 0
        stored = f"{one.stored} ({one.truncated} truncated)" if one.truncated else str(one.stored)
        failed = ", ".join(f"{count} {reason}" for reason, count in one.failed.items()) or "0"
        said = one.said.replace("|", "\\|").replace("\n", " ")
        cells = (case.name, said, one.planned, stored, failed, one.left, one.after_rerun, one.lost, one.doubled)
        print("| " + " | ".join(map(str, cells)) + f" | {one.seconds:.1f} |", flush=True)
    if not faultless:
        raise SystemExit("rows were lost or doubled")


if __name__ == "__main__":
    main()
