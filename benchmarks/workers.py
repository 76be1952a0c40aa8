"""Contenders in processes of their own: they compile side by side, and each is timed
alone when its turn comes.

A worker is a script that was started with `--worker`. It makes what it needs, says that
it is ready, and then does what it is asked to, a line of JSON each way."""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import DEVICE, Clock


class Worker:
    "A process that was asked to make something, and will be asked for more."

    def __init__(self, name: str, script: str, words: list[str]):
        command = [sys.executable, script, *words, "--worker"]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name, self.error = name, None
        self.process = subprocess.Popen(command, **pipes)
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, clock: Clock) -> Any:
        """What it says next. RuntimeError where it failed, TimeoutError where it is
        late."""
        if self.error:
            raise RuntimeError(self.error)
        try:
            line = self.lines.get(timeout=max(clock.left, 0.01))
        except queue.Empty:
            self.stop("it was not done in time")
            raise TimeoutError(self.error) from None
        found = {"error": "its process ended"} if line is None else json.loads(line)
        if "error" in found:
            self.stop(found["error"])
            raise RuntimeError(self.error)
        return found["answer"]

    def ask(self, clock: Clock, do: str, **options: Any) -> Any:
        "Have it do something, and wait for the answer."
        if self.error:
            raise RuntimeError(self.error)
        try:
            self.process.stdin.write(json.dumps(dict(do=do, options=options)) + "\n")
            self.process.stdin.flush()
        except OSError:
            self.stop("its process ended")
        return self.answer(clock)

    def stop(self, why: str = "it was stopped") -> None:
        self.error = self.error or why
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def started(
    jobs: dict[str, list[str]],  # the words that each worker is started with
    script: str,
    clock: Clock,  # those that are not ready then are stopped
    at_once: int,  # how many may start side by side
) -> dict[str, Worker]:
    "Workers that are ready or have failed; they say which, and why."
    workers: dict[str, Worker] = {}
    begun = time.monotonic()
    waiting: list[Worker] = []
    for name, words in jobs.items():
        if len(waiting) == at_once:
            _ready(waiting.pop(0), clock, begun)
        workers[name] = Worker(name, script, words)
        waiting.append(workers[name])
    for worker in waiting:
        _ready(worker, clock, begun)
    return workers


def _ready(worker: Worker, clock: Clock, begun: float) -> None:
    try:
        worker.answer(clock)
        print(
            f"{worker.name}: ready after {time.monotonic() - begun:.0f} s", flush=True
        )
    except (RuntimeError, TimeoutError) as problem:
        print(f"{worker.name}: {problem}", flush=True)


def serve(make: Callable[[], dict[str, Callable[..., Any]]]) -> None:
    "In the worker: make what can be done, say so, and do it when asked."
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes where it does no harm

    def say(call: Callable[[], Any]) -> Any:
        try:
            found = {"answer": call()}
        except Exception as problem:
            print(f"{type(problem).__name__}: {problem}"[:2000], file=sys.stderr)
            line = " ".join(f"{type(problem).__name__}: {problem}".split())
            found = {"error": line[:200]}
        return found

    actions: dict[str, Callable[..., Any]] = {}
    print(json.dumps(say(lambda: actions.update(make()))), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        found = say(lambda: actions[asked["do"]](**asked["options"]))
        print(json.dumps(found), file=out, flush=True)


def shared_words(parser: argparse.ArgumentParser, seconds: float) -> None:
    "The flags of every script that has workers."
    parser.add_argument(
        "--deadline",
        type=float,
        default=seconds,
        help="seconds, from when the workers may be timed; nothing is begun after them",
    )
    parser.add_argument(
        "--ready",
        type=float,
        default=600,
        help="seconds in which a worker must have compiled",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=1 if DEVICE == "cpu" else 32,
        help="how many workers may start side by side",
    )
    parser.add_argument(
        "--hold",
        type=Path,
        help="time nothing before this file is there, which may hold another deadline; "
        "the same name with .ready says that all have compiled",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def held(args: argparse.Namespace) -> Clock:
    "Wait for the sign, and start the clock."
    if args.hold:
        args.hold.with_suffix(".ready").touch()
        while not args.hold.exists():
            time.sleep(0.2)
        args.deadline = float(args.hold.read_text().strip() or args.deadline)
    return Clock.of(args.deadline)
