from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.config.addresses import ListenAddress, UnixAddress, Url
from cdn.config.loader import load
from cdn.config.problems import ConfigError
from cdn.config.quick import quick_edge, quick_shield

HERE = {"hostname": "tokyo1.example", "environ": {}}
ORIGIN = "http://127.0.0.1:9000"


def told(quick, **flags) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        quick(**{**HERE, **flags})
    return [str(problem) for problem in caught.value.problems]


def test_a_quick_edge_is_what_its_file_would_be(tmp_path):
    (tmp_path / "service.yaml").write_text(f"name: default\nhosts: ['*']\norigins: ['{ORIGIN}']\n")
    (tmp_path / "edge.yaml").write_text(
        "role: edge\nname: e\nlisten: 127.0.0.1:8080\nmemory: 5MiB\ndirect_to_origin: true\n"
        "store: kept\ndisk: 1GiB\nadmission: reuse\n"
        f"access_log: {tmp_path}/log\nadmin: {{listen: a:1, token_env: CDN_ADMIN_TOKEN}}\n"
        "shields: [{name: 127.0.0.1-8180, url: 'http://127.0.0.1:8180'}]\nservices: service.yaml\n"
    )
    environ = {"CDN_ADMIN_TOKEN": "0123456789abcdef"}
    config = quick_edge(
        listen=["127.0.0.1:8080"],
        origin=ORIGIN,
        shields=["http://127.0.0.1:8180"],
        admin="a:1",
        memory="5MiB",
        store=f"{tmp_path}/kept",
        disk="1GiB",
        admission="reuse",
        name="e",
        access_log=f"{tmp_path}/log",
        hostname="any",
        environ=environ,
    )
    assert config == load(tmp_path / "edge.yaml", environ)
    assert config.admin.token == "0123456789abcdef"


def test_the_smallest_edge():
    config = quick_edge(listen=["127.0.0.1:8080", "[::1]:8080"], origin=ORIGIN, **HERE)
    assert config.listen == (ListenAddress("127.0.0.1", 8080), ListenAddress("::1", 8080))
    assert config.name == "edge-8080-tokyo1"
    assert config.direct_to_origin
    assert config.services[0].hosts == ("*",)
    assert config.services[0].origins == (Url("http", "127.0.0.1", 9000),)


def test_shields_alone_will_do_and_are_named_by_host_and_port():
    shields = ["http://127.0.0.1:8180", "https://[::1]"]
    config = quick_edge(listen=["a:1"], shields=shields, **HERE)
    assert [shield.name for shield in config.shields] == ["127.0.0.1-8180", "__1-443"]
    assert not config.direct_to_origin


def test_a_quick_shield_believes_loopback_unless_told():
    config = quick_shield(listen=["a:8180"], origin=ORIGIN, **HERE)
    assert config.name == "shield-8180-tokyo1"
    assert config.edges.prefixes == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    config = quick_shield(listen=["a:8180"], origin=ORIGIN, edges=["192.0.2.0/24"], **HERE)
    assert config.edges.prefixes == (ip_network("192.0.2.0/24"),)


@given(st.text(max_size=100))
def test_any_machine_has_a_default_name(hostname):
    config = quick_edge(listen=["a:1"], origin=ORIGIN, hostname=hostname, environ={})
    assert config.name.startswith("edge-1")


def test_what_is_missing():
    assert told(quick_edge, listen=[]) == [
        "--listen: is missing; write --listen 127.0.0.1:8080",
        "--origin: is missing; write --origin http://127.0.0.1:9000, or --shield URL",
    ]
    assert told(quick_shield, listen=[], origin=None) == [
        "--listen: is missing; write --listen 127.0.0.1:8180",
        "--origin: is missing; write --origin http://127.0.0.1:9000",
    ]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"listen": ["8080"]}, "--listen: '8080' is not HOST:PORT; "),
        ({"listen": ["a:1", "a:1"]}, "--listen: a:1 is given twice; "),
        ({"origin": "127.0.0.1:9000"}, "--origin: '127.0.0.1:9000' is not an http or https URL"),
        ({"origin": ""}, "--origin: '' is not an http or https URL"),
        ({"shields": ["x"]}, "--shield: 'x' is not an http or https URL"),
        ({"shields": ["http://x", "http://x"]}, "--shield: http://x:80 is given twice; "),
        ({"memory": "5MB"}, "--memory: '5MB' is not a size; write 5MiB"),
        ({"store": "s"}, "--disk: the store needs to know how much of its disk it may use; "),
        ({"store": "", "disk": "1GiB"}, "--store: '' is not a path; "),
        (
            {"store": "s", "disk": "1MiB"},
            "--disk: is too little for a store; write 180MiB or more",
        ),
        ({"admission": "x"}, "--admission: 'x' will not do; write a value 'all' or 'reuse'"),
        ({"name": "a b"}, "--name: 'a b' is not a name; "),
        ({"name": ""}, "--name: '' is not a name; "),
        ({"access_log": ""}, "--access-log: '' is not a path; "),
        ({"admin": "unix:x"}, "--admin: 'unix:x' is not a Unix socket's absolute path"),
        ({"admin": "a:1"}, "--admin: 127.0.0.1:1 is the viewers' address already; "),
    ],
)
def test_problems_name_the_flag(flags, line):
    if flags == {"admin": "a:1"}:
        flags = {"admin": "127.0.0.1:1", "environ": {"CDN_ADMIN_TOKEN": "0123456789abcdef"}}
    (only,) = told(quick_edge, **{"listen": ["127.0.0.1:1"], "origin": ORIGIN, **flags})
    assert only.startswith(line)


def test_a_shields_prefix_names_its_flag():
    (only,) = told(quick_shield, listen=["a:1"], origin=ORIGIN, edges=["x"])
    assert only.startswith("--edges: 'x' is not an address prefix; ")


def test_admin_on_tcp_takes_its_token_from_the_environment():
    (only,) = told(quick_edge, listen=["a:1"], origin=ORIGIN, admin="127.0.0.1:8081")
    assert only == (
        "--admin: an admin listener on TCP needs a bearer token, and the environment has no "
        "CDN_ADMIN_TOKEN; export CDN_ADMIN_TOKEN=$(openssl rand -hex 32) first, "
        "or write --admin unix:/PATH"
    )
    config = quick_edge(listen=["a:1"], origin=ORIGIN, admin="unix:/run/x.sock", **HERE)
    assert config.admin.listen == UnixAddress(Path("/run/x.sock"))
    assert config.admin.token is None
