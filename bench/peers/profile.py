"""Where our edge spends a workload's time, as a flame graph: make profile WORKLOAD=miss.

Strategy: the edge is prepared as for `make peers`, then py-spy looks at it from the load's core
while wrk asks. It needs nothing of the edge, but it slows it: shares are to be read, not rates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.peers.contenders import OURS, edge_has_tls, require
from bench.peers.load import parse_figures, run_wrk
from bench.peers.origin import origin
from bench.peers.processes import Unusable, last_words, process
from bench.peers.rounds import Plan, fill_shield, launch, prepare, words_of
from bench.peers.workloads import WORKLOADS, Workload
from bench.peers.workplace import begin, cores, make_certificate, workplace

RATE = 100
"""Samples per second. Each stops the edge for a moment: more of them make it a third slower."""


def py_spy() -> str:
    """Its path: beside this Python, or in PATH. Raises Unusable."""
    here = Path(sys.executable).parent
    found = shutil.which("py-spy", path=f"{here}:{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise Unusable("py-spy is not installed: make setup brings it (extra dev)")
    return found


def profile(workload: Workload, seconds: int, chart: Path) -> str:
    """Writes the flame graph to `chart`; a sentence about the run. Raises Unusable."""
    sampler = py_spy()
    with workplace() as folder:
        cache_core, load_core = cores()
        os.sched_setaffinity(0, {load_core})
        certificate = make_certificate(folder) if workload.tls else None
        plan = Plan([OURS], 1, seconds, True, cache_core, load_core, certificate)
        with (
            origin(folder / "origin", load_core) as source,
            launch(OURS, workload, plan, folder, source) as server,
        ):
            prepare(server, workload, plan)
            words = words_of(server, workload, plan, 0)
            if server.behind:
                fill_shield(server, plan, words)
            command = [sampler, "record", "--pid", str(server.processes[0].pid), "--subprocesses"]
            command += [
                "--threads",
                "--rate",
                str(RATE),
                "--duration",
                str(seconds),
                "--output",
                str(chart),
            ]
            said = folder / "sampler"
            with process(command, said, load_core) as sampling:
                # A second more than is sampled: to the sampler's last look it is busy.
                asked = seconds + 1
                out = run_wrk(server.url, load_core, workload.connections, asked, words)
                load = parse_figures(out)
                try:
                    ended = sampling.wait(60)
                except subprocess.TimeoutExpired:
                    raise Unusable("py-spy has not ended within a minute of its time") from None
            if ended:
                raise Unusable(
                    f"py-spy: {last_words(said)} (it needs root, or "
                    "sysctl kernel.yama.ptrace_scope=0)"
                )
    return f"{workload.name}: {load.requests / load.seconds:,.0f} requests/s while sampled: {chart}"


def profiled(name: str) -> Workload:
    """The workload `name`. Raises Unusable."""
    workload = WORKLOADS.get(name)
    if workload is None or workload.is_idle:
        names = ", ".join(known for known, one in WORKLOADS.items() if not one.is_idle)
        raise Unusable(f"{name} is no workload to profile: there are {names}")
    require([])
    if workload.tls and not edge_has_tls():
        raise Unusable(f"{name} cannot be profiled: cdn edge has no --tls-cert yet")
    return workload


app = typer.Typer(add_completion=False)


@app.command()
def main(
    workload: Annotated[str, typer.Option(help="One of make peers.", metavar="NAME")] = "hot-1k",
    seconds: Annotated[int, typer.Option(min=1, help="How long to sample.")] = 10,
    chart: Annotated[
        Path | None, typer.Option(help="The SVG; default profile-NAME.svg.", metavar="FILE")
    ] = None,
) -> None:
    """A flame graph of our edge under one workload."""
    begin()
    errors = Console(stderr=True)
    try:
        chosen = profiled(workload)
        with errors.status(f"{workload}: sampling for {seconds} s"):
            told = profile(chosen, seconds, (chart or Path(f"profile-{workload}.svg")).absolute())
    except Unusable as error:
        errors.print(str(error), soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    typer.echo(told)


if __name__ == "__main__":
    app(prog_name="python -m bench.peers.profile")
