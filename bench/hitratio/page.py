"""docs/HITRATIO.md and its charts, made from the rows, so that nobody ever types a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.hitratio.chart import chart
from bench.hitratio.results import Row, grid, verdict

CHARTS = {
    "objects": ("Object hits, %", lambda outcome: outcome.object_hits),
    "bytes": ("Byte hits, %", lambda outcome: outcome.byte_hits),
    "written": (
        "Written to a disk, GB",
        lambda outcome: None if outcome.written is None else outcome.written / 1e9,
    ),
    "ns": ("Time per request, ns", lambda outcome: outcome.ns),
}

TEXT = """# Hit ratios

Who goes when bytes are short is decided by measurement. This page is written by

    make hitratio ARGS="--traces DIR --page docs"

which plays every trace of DIR (CSV, gzip: `time,key,size`) and two made ones through every policy,
at five sizes of cache, each a share of the bytes of all objects. Without `--traces` only the made
ones are played; `--quick` takes seconds.

{verdict}

## What was played

- **LRU** is what nginx and Varnish do, **GDSF** is Squid's `heap GDSF`; **SIEVE** and **S3-FIFO**
  are the newest of the simple ones.
- **GDG** (the RAM default) is GreedyDual with ghosts: priority = clock + g(uses) × size^(α − 1),
  α = 0.5, g(1) = 0.3, g(n) = n; a ghost's uses are taken up again when it comes back. Uses beyond
  63 are not counted, so that yesterday's crowd does not outlive today's: it costs nothing.
- **Two logs** (the disk default) are S3-FIFO for segments that are written once and dropped whole.
  Probation has 15 % of the disk; two uses there lead to main, one use keeps in main; what leaves
  either leaves a ghost, worth twice the disk in all (0.8 points on films); of a segment at most
  three quarters are spared, the most used first, which bounds what is written and costs nothing.
  With `reuse` probation is in RAM, here a hundredth of the disk; where that is less than a slice,
  whole slices pass by.
- **optimum** is PFOO-L, a bound from above that no cache reaches, for each of the two ratios by
  itself (Berger, Beckmann, Harchol-Balter, SIGMETRICS 2018). Belady's rule is no bound where
  objects differ in size: GDSF beats it.

### What of the disk store is simulated

The rules are the store's own code (cdn/storage/eviction/two_logs.py): names, ghosts, which log a
record enters, whose oldest segment goes, what of it is spared. Around them
bench/hitratio/log_store.py does in lists what the store does in files: 1 MiB slices and one head
per response, each a record with its header and key; segments of 64 MiB or a tenth of a shard; the
disk full to the last record; use counts up to 63 per record. A test plays one trace through it and
through a real store (tests/storage/test_eviction_two_logs.py) and finds the same slices at every
request and the same bytes written. What is not as on a disk:

- A node has 16 shards. Where each would have less than 160 MiB here, there are 8, 4, 2 or 1: with
  one slice in a segment it would not be the replacement that is measured. Under 11.25 MiB no store
  opens: such cells are empty (–).
- A head has 400 bytes, the index 120 for each record.
- An object is asked for whole, each slice counts one use, and what was missing is stored before the
  next request. All of it is fresh for ever and has one variant.

Every request counts, the first ones too; an object larger than the cache passes by. The written
bytes and the ns (Python, the loop of the measurement included, on a shared machine) are means of
the sizes. For policies on whole objects the written bytes are what a disk under them would take.
{charts}
## Figures
{tables}"""


def write_page(rows: Sequence[Row], directory: Path) -> None:
    """Writes HITRATIO.md and hitratio-*.svg. Raises OSError."""
    pictures = []
    for name, (title, value) in CHARTS.items():
        (directory / f"hitratio-{name}.svg").write_text(chart(rows, title, value))
        pictures.append(f"\n![{title}](hitratio-{name}.svg)\n")
    tables = []
    for trace in dict.fromkeys(row.trace for row in rows):
        head, *lines = grid(rows, trace)
        rule = ["---", *["--:"] * (len(head) - 1)]
        text = "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
        tables.append(f"\n### {trace}\n\n{text}\n")
    said = "\n".join(f"- {sentence}" for sentence in verdict(rows))
    text = TEXT.format(verdict=said, charts="".join(pictures), tables="".join(tables))
    (directory / "HITRATIO.md").write_text(text)
