"""`python -m tests.run`: every test, measured, with the coverage that the project promises.

Strategy: pytest runs under coverage, and so do the nodes that tests start as processes of their own
(`patch = subprocess` in pyproject.toml). With arguments it is plain pytest on what they name: part
of the tests says nothing about coverage.
"""

import subprocess
import sys

PURE = "cdn/semantics/*,cdn/hashing/*"
PURE_LEAST = 100
WHOLE_LEAST = 90


def main(arguments: list[str]) -> int:
    if arguments:
        return _module("pytest", *arguments)
    _module("coverage", "erase")
    failed, summary = _measured_pytest()
    if failed:
        return failed
    _module("coverage", "combine", "--quiet")
    pure = _module("coverage", "report", "-m", f"--include={PURE}", f"--fail-under={PURE_LEAST}")
    whole = _module("coverage", "report", "--skip-covered", f"--fail-under={WHOLE_LEAST}")
    if pure:
        print(f"tests.run: {PURE} must be covered to {PURE_LEAST} %: the lines above are missing")
    if whole:
        print(f"tests.run: less than {WHOLE_LEAST} % is covered: the files above say where")
    print(summary)
    return pure or whole


def _module(name: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", name, *arguments], check=False).returncode


def _measured_pytest() -> tuple[int, str]:
    """pytest's exit code and its last line, which the reports would push out of sight."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest"]
    tail = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        while piece := running.stdout.read1():  # type: ignore[attr-defined]
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            tail = (tail + piece)[-1000:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return running.returncode, lines[-1] if lines else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
