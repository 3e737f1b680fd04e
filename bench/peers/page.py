"""docs/PERFORMANCE.md and its chart, made from the rows, so that nobody ever types a figure.

Strategy: what no row can tell, why one resists and what was tried, is in `resists.md` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.chart import chart
from bench.peers.results import HEAD, Row, grid, verdicts
from bench.peers.workloads import WORKLOADS
from bench.store import page as store

TEXT = """# CPU per request

What a request costs our edge, and what it costs others in its place. This page is written by

    make peers ARGS="--page docs"

which needs nginx, varnish, trafficserver, wrk and gcc (it names those that are missing). `--quick`
takes two minutes, `--workload NAME`, `--peers NAMES`, `--rounds N` and `--seconds S` choose,
`--json FILE` and `--chart FILE` write. Where a request spends its time,
`make profile WORKLOAD=miss` shows as a flame graph.

## How it is measured

- Every cache is a reverse proxy before the same nginx origin on loopback. The caches are pinned to
  one core, the origin and the load (wrk, keep-alive) to another.
- In turn, round by round: {rounds} rounds of {seconds} s. A ratio is taken within a round, and the
  one in the table is the median of the rounds': a machine's noise is in both.
- CPU is user + system of all processes of a server, out of /proc, over the answers wrk got.
  Varnish's log is written by a program of its own (varnishncsa), which is in its figure. Latency
  is wrk's, in a closed loop: it is the queue of the connections, not what one viewer waits.
- All write a buffered access log with the fields of the combined format, the cache's outcome and
  the time taken; all keep what they store in RAM or in files in shared memory. nginx has
  open_file_cache, sendfile and upstream keep-alive; Varnish malloc, Traffic Server its RAM cache;
  `bench/peers/contenders.py` has the configurations whole.
- Our node has the kernel run its loop in batches by itself (`scheduling` in CONFIGURATION.md). The
  others run as their packages have them; started under `chrt -b 0`, nginx and Traffic Server cost
  the same in two-tier, where it tells.
- Our node runs on the Python that `make setup PYTHON=...` was given. Here that is Debian's, as the
  others are Debian's. One built without profile-guided optimisation (which pyenv does not ask for)
  costs a miss a fifth more, hits as much.
- Ours answers with Age, Via, ETag and Cache-Status, by every caching rule. The run fails unless
  its counters and its log lines agree with each other and with wrk's count (of the requests that
  are under way when wrk hangs up, wrk has counted none), unless wrk met no error, and unless the
  origin got the share of requests that the workload says.
- The floor is an epoll loop in C that answers fixed bytes of the same (mean) size
  (`bench/peers/floor.c`): what the kernel takes from everybody.

| workload | what | target: our CPU / nginx's |
|---|---|--:|
{targets}

Against Varnish and Traffic Server the target is to be ahead in every row.

## Figures

{machine}. {versions}. The load average before the run was {load:.1f}; where it is not near
nought, others were at work: their share is in rates and latencies, and where much memory is touched
(zipf, mix-90, misses) in CPU per request too.

![Server CPU per request](performance.svg)

{verdicts}
{tables}
{resists}"""

RESISTS = Path(__file__).with_name("resists.md")


def write_page(table: Sequence[Row], told: Mapping[str, Any], directory: Path) -> None:
    """Writes PERFORMANCE.md, but for the disk store's section, and performance.svg. Raises
    OSError."""
    (directory / "performance.svg").write_text(chart(table))
    tables = []
    for name in dict.fromkeys(row.workload for row in table):
        rule = ["---", *["--:"] * (len(HEAD) - 1)]
        lines = (HEAD, rule, *grid(table, name))
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        tables.append(f"\n### {name}\n\n{WORKLOADS[name].what}\n\n{text}\n")
    versions = (f"{name} {number}" for name, number in told["versions"].items())
    text = TEXT.format(
        rounds=told["rounds"],
        seconds=told["seconds"],
        targets="\n".join(
            f"| {w.name} | {w.what} | {_target(w.name)} |" for w in WORKLOADS.values()
        ),
        machine=told["machine"],
        load=told["load_before"],
        versions=", ".join(versions),
        verdicts="\n".join(f"- {verdict.sentence}" for verdict in verdicts(table)),
        tables="".join(tables),
        resists=RESISTS.read_text(),
    )
    if section := store.kept(directory):
        text += f"\n{section}"
    (directory / "PERFORMANCE.md").write_text(text)


def _target(name: str) -> str:
    workload = WORKLOADS[name]
    if workload.is_idle:
        return f"≤ {workload.target:.0f} KiB each"
    floor = workload.floor_target
    return f"≤ {workload.target:.2f}" + (
        f", ≤ {floor} × the floor in CPU and in p99 / p50" if floor else ""
    )
