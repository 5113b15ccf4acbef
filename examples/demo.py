"""The main job from end to end, with the commands that a user would type.

It trains a plain classifier on synthetic support messages, and a private one on an encoder whose
attention is bounded. It audits them side by side, serves them, asks the server through the client,
and prints one table. All files go to ``demo/``.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

DEMO = Path("demo")
DATA = "tickets"
BIN = Path(sys.executable).parent
QUESTION = (
    "Hi, I was charged twice last month and you fixed that. Today I cannot log in any more: "
    "my e-mail is maria.keller@example.com and my phone is +1 415 555 0132."
)
COMMON = ["--data", DATA, "--seed", "0"]
RUNS = {
    "plain": ["--encoder", "minilm", "--epsilon", "none"],
    "private": ["--encoder", "minilm-bounded", "--epsilon", "3"],
}

console = Console(markup=False, emoji=False)


def main() -> None:
    """Run the demo, which leaves its runs and its report in ``demo/``."""
    shutil.rmtree(DEMO, ignore_errors=True)
    runs = DEMO / "runs"
    for name, options in RUNS.items():
        command("attnpriv", "train", *COMMON, *options, "--out", str(runs / name))
    both = [str(runs / "plain"), "--against", str(runs / "private")]
    # The messages are synthetic, so their words may be shown.
    report = ["--data", DATA, "--out", str(DEMO / "report"), "--include-text"]
    pace = ["--depth", "quick", "--processes", "2"]
    table = command("attnpriv", "audit", *both, *report, *pace, capture=True)
    with serving(runs, DEMO / "server.log") as target:
        for name in RUNS:
            command("attnpriv-client", "predict", "--target", target, "--model", name, QUESTION)
        command("attnpriv-client", "explain", "--target", target, "--model", "private", QUESTION)
    console.rule("What the audit found", align="left")
    console.out(table, highlight=False)


def command(program: str, *arguments: str, capture: bool = False) -> str:
    """Show and run a command, and return its output if captured; a failure stops the demo."""
    console.rule(f"{program} {' '.join(arguments[:2])}", align="left")
    console.print("$", program, *arguments, style="bold", highlight=False, soft_wrap=True)
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run([BIN / program, *arguments], check=True, stdout=stdout, text=True)
    return done.stdout or ""


@contextmanager
def serving(runs: Path, log_file: Path) -> Iterator[str]:
    """Serve the runs on a free port and yield the address; the server stops with the block."""
    arguments = ["--models", str(runs), "--listen", "127.0.0.1:0"]
    log = log_file.open("w", encoding="utf-8")
    console.rule("attnpriv-server", align="left")
    console.print("$ attnpriv-server", *arguments, "&", style="bold", highlight=False)
    server = subprocess.Popen(
        [BIN / "attnpriv-server", *arguments], stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "listening on" not in line:
            sys.exit("the server did not start")
        yield line.split()[-1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    console.print(f"the server stopped with exit code {server.returncode}")


def run(demo: Callable[[], None]) -> None:
    """Run a demo; a command that fails ends it in one line."""
    try:
        demo()
    except subprocess.CalledProcessError as error:
        sys.exit(f"the demo stopped: {Path(error.cmd[0]).name} ended with {error.returncode}")


if __name__ == "__main__":
    run(main)
