"""The one command: `cdn`.

Strategy: each command reads its flags, hands finished values on, and turns every expected error
into one line on stderr and exit code 1. What a command does is elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

import edge.role
import shield.role
from cdn.config.check import check as check_configuration
from cdn.config.loader import load_edge, load_shield
from cdn.config.models import NodeConfig
from cdn.config.problems import ConfigError
from cdn.config.quick import quick_edge, quick_shield
from cdn.control.client import AdminClient, AdminError, read_token
from cdn.demo.run import run_demo
from cdn.node.supervisor import run
from cdn.storage.inspect import look
from cdn.store_commands import app as store_commands

_FLAGS = {"shields": "--shield"}
"""Those that are called otherwise than their value."""

app = typer.Typer(
    help="An open content delivery network: edges, origin shields, one promise to the origin.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(store_commands, name="store")

Config = Annotated[
    Path | None, typer.Option("-c", "--config", help="A file, e.g. configs/edge.yaml.")
]
Listen = Annotated[list[str] | None, typer.Option(help="HOST:PORT to listen on; repeatable.")]
TlsListen = Annotated[
    list[str] | None, typer.Option(help="HOST:PORT to listen on for TLS; repeatable.")
]
TlsCert = Annotated[str | None, typer.Option(help="PEM file: the certificate and its chain.")]
TlsKey = Annotated[
    str | None, typer.Option(help="PEM file: its key; may be left out where that has it, too.")
]
Origin = Annotated[str | None, typer.Option(help="URL of the origin, e.g. http://127.0.0.1:9000.")]
Shields = Annotated[list[str] | None, typer.Option("--shield", help="URL of a shield; repeatable.")]
Admin = Annotated[str | None, typer.Option(help="HOST:PORT or unix:/PATH of the admin listener.")]
Memory = Annotated[str | None, typer.Option(help="RAM for stored responses, e.g. 256MiB.")]
Store = Annotated[str | None, typer.Option(help="A directory to keep stored responses in.")]
Disk = Annotated[str | None, typer.Option(help="How much of its disk they may take, e.g. 100GiB.")]
Admission = Annotated[
    str | None, typer.Option(help="all (default), or reuse: to disk when asked for again.")
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that share the work; default one per CPU with --store, else 1."),
]
Name = Annotated[str | None, typer.Option(help="The node's name in Via and Cache-Status.")]
AccessLog = Annotated[str | None, typer.Option(help="A file, or - for standard output.")]
AdminAt = Annotated[
    str, typer.Option("--admin", help="The node's admin listener: HOST:PORT or unix:/PATH.")
]
TokenFile = Annotated[
    str | None, typer.Option(help="File with the admin token; else CDN_ADMIN_TOKEN is used.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs rather than people.")]


@app.command("edge")
def edge_command(
    config: Config = None,
    listen: Listen = None,
    tls_listen: TlsListen = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    origin: Origin = None,
    shields: Shields = None,
    admin: Admin = None,
    memory: Memory = None,
    store: Store = None,
    disk: Disk = None,
    admission: Admission = None,
    workers: Workers = None,
    name: Name = None,
    access_log: AccessLog = None,
) -> None:
    """Run an edge: from a file, or from flags alone."""
    flags = _given(
        listen=listen, tls_listen=tls_listen, tls_cert=tls_cert, tls_key=tls_key, origin=origin,
        shields=shields, admin=admin, memory=memory, store=store, disk=disk, admission=admission,
        workers=workers, name=name, access_log=access_log,
    )  # fmt: skip

    def load() -> NodeConfig:
        if config is not None:
            return load_edge(config)
        return quick_edge(**_quick(flags, listen))

    _refuse_both(config, flags)
    raise typer.Exit(run(_loaded(load), edge.role.assemble, load))


@app.command("shield")
def shield_command(
    config: Config = None,
    listen: Listen = None,
    tls_listen: TlsListen = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    origin: Origin = None,
    admin: Admin = None,
    memory: Memory = None,
    store: Store = None,
    disk: Disk = None,
    admission: Admission = None,
    workers: Workers = None,
    name: Name = None,
    access_log: AccessLog = None,
) -> None:
    """Run an origin shield: from a file, or from flags alone."""
    flags = _given(
        listen=listen, tls_listen=tls_listen, tls_cert=tls_cert, tls_key=tls_key, origin=origin,
        admin=admin, memory=memory, store=store, disk=disk, admission=admission, workers=workers,
        name=name, access_log=access_log,
    )  # fmt: skip

    def load() -> NodeConfig:
        if config is not None:
            return load_shield(config)
        return quick_shield(**({"origin": None} | _quick(flags, listen)))

    _refuse_both(config, flags)
    raise typer.Exit(run(_loaded(load), shield.role.assemble, load))


@app.command()
def demo(
    check: Annotated[bool, typer.Option(help="Try it and exit: 0 if all went well.")] = False,
    port: Annotated[int | None, typer.Option(help="The first of five ports in a row.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep what is stored in this directory.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A small CDN on this machine: an origin, two shields, two edges."""
    raise typer.Exit(
        run_demo(
            edge.role.assemble,
            shield.role.assemble,
            check=check,
            port=port,
            store=store,
            as_json=as_json,
        )
    )


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A file, or a directory such as configs/.")],
    as_json: AsJson = False,
) -> None:
    """Validate configuration; exit code 1 where something is wrong."""
    report = check_configuration(path, look=look)
    if as_json:
        problems = [
            {"file": p.file, "line": p.line, "where": p.where, "what": p.what, "mend": p.mend}
            for p in report.problems
        ]
        print(json.dumps({"checked": [str(f) for f in report.checked], "problems": problems}))
    else:
        for problem in report.problems:
            print(problem)
        print(f"{path}: {report.summary}")
    raise typer.Exit(1 if report.problems else 0)


@app.command()
def status(admin: AdminAt, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """What a running node says of itself."""
    told = _asked(admin, token_file, lambda node: node.status())
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        Console().print(_status_table(told))


@app.command()
def purge(
    url: Annotated[str, typer.Argument(help="An absolute URL, as viewers ask for it.")],
    admin: AdminAt,
    token_file: TokenFile = None,
) -> None:
    """Remove a URL, with all its variants, from a running node."""
    removed = _asked(admin, token_file, lambda node: node.purge(url))
    print(f"{url}: {removed} stored {'response' if removed == 1 else 'responses'} removed")


@app.command()
def reload(admin: AdminAt, token_file: TokenFile = None) -> None:
    """Have a running node read its configuration again."""
    report = _asked(admin, token_file, lambda node: node.reload())
    for message in report.messages:
        print(message)
    print("reloaded" if report.ok else "nothing changed: the old configuration goes on")
    raise typer.Exit(0 if report.ok else 1)


def main() -> None:
    """The console script."""
    app()


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None and value != []}


def _quick(flags: dict[str, Any], listen: list[str] | None) -> dict[str, Any]:
    return flags | {
        "listen": listen or [],
        "hostname": socket.gethostname(),
        "environ": os.environ,
    }


def _refuse_both(config: Path | None, flags: dict[str, Any]) -> None:
    if config is not None and flags:
        names = ", ".join(_FLAGS.get(name, f"--{name.replace('_', '-')}") for name in flags)
        _fail(f"{names}: the file given with -c says it; leave the flags, or the file, out")


def _loaded(load: Callable[[], NodeConfig]) -> NodeConfig:
    try:
        return load()
    except ConfigError as error:
        _fail(*map(str, error.problems))


def _asked(admin: str, token_file: str | None, ask: Callable[[AdminClient], Any]) -> Any:
    try:
        return ask(AdminClient(admin, read_token(token_file, os.environ)))
    except AdminError as error:
        _fail(str(error))


def _fail(*lines: str) -> NoReturn:
    for line in lines:
        typer.echo(f"cdn: {line}", err=True)
    raise typer.Exit(1)


def _status_table(told: dict[str, Any]) -> Table:
    table = Table(show_header=False, title=f"{told['role']} {told['node']}", title_justify="left")
    for key, value in told.items():
        if key == "store" and (trouble := value.pop("trouble", "")):
            table.add_row("", trouble, style="bold red")
        table.add_row(key.replace("_", " "), _words(value))
    return table


def _words(value: Any) -> str:
    if isinstance(value, dict):
        said = {name: _words(inner) for name, inner in value.items()}
        return ", ".join(f"{name} {words}" for name, words in said.items() if words)
    if isinstance(value, list):
        return "\n".join(map(_words, value))
    return str(value)
