import os
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from cdn.config.addresses import ListenAddress, Url
from cdn.config.loader import load, load_edge, load_shield
from cdn.config.models import CacheConfig, EdgeConfig, ShieldConfig, needs_restart
from cdn.config.problems import ConfigError
from cdn.config.values import Context
from cdn.semantics.policy import CachePolicy
from tests.config.config_trees import EDGE, FILMS, SHIELD


def problems(path: Path, environ=None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    lines = [str(problem) for problem in caught.value.problems]
    assert str(caught.value) == "\n".join(lines)
    return lines


def test_an_edge_with_its_defaults(write):
    config = load_edge(write(edge=EDGE), {})
    assert config.listen == (ListenAddress("127.0.0.1", 8080),)
    assert config.memory == 2**30
    assert (config.admin, config.access_log, config.shield_secret) == (None, None, None)
    assert (config.operator, config.prefixes, config.direct_to_origin) == ("", (), False)
    assert config.deadlines.first_byte == 40
    (shield,) = config.shields
    assert (shield.name, shield.url, shield.weight) == (
        "yokohama",
        Url("http", "127.0.0.1", 8180),
        1,
    )
    (films,) = config.services
    assert films.hosts == ("films.example",)
    assert films.deadlines.first_byte == 15
    assert films.origin_host is None
    assert films.policy() == CachePolicy()


def test_an_edge_with_everything(write, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    config = load_edge(
        write(
            edge=EDGE.replace("listen: 127.0.0.1:8080", 'listen: ["[::]:8080", 127.0.0.1:0]')
            + "operator: 東京 CATV\nprefixes: [192.0.2.0/24]\nmemory: 64MiB\naccess_log: log/a\n"
            "admin: {listen: 127.0.0.1:8081, token_file: token}\nshield_secret_file: token\n"
            "direct_to_origin: true\ndeadlines: {first_byte: 1m}\n",
            films=FILMS + "origin_host: o.example:81\n"
            "cache: {stale_if_error: 5m, request_directives: false, slice_size: 4MiB}\n",
        ),
        {},
    )
    assert config.listen == (ListenAddress("::", 8080), ListenAddress("127.0.0.1", 0))
    assert config.operator == "東京 CATV"
    assert config.prefixes == (ip_network("192.0.2.0/24"),)
    assert config.memory == 64 * 2**20
    assert config.access_log == str(tmp_path / "log/a")
    assert config.admin.token == config.shield_secret == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(config)
    assert (config.deadlines.connect, config.deadlines.first_byte) == (3, 60)
    (films,) = config.services
    assert films.origin_host == "o.example:81"
    assert films.policy() == CachePolicy(
        stale_if_error=300, request_directives=False, slice_size=4 << 20
    )


def test_a_shield(write, tmp_path):
    (tmp_path / "secret").write_text("0123456789abcdef")
    text = SHIELD.replace("}", ", secret_file: secret}")
    config = load_shield(write(shield=text + "access_log: '-'\n"), {})
    assert config.edges.prefixes == (ip_network("127.0.0.0/8"),)
    assert config.edges.secret == "0123456789abcdef"
    assert config.access_log == "-"
    assert load_shield(write(shield=SHIELD), {}).edges.secret is None


def test_cache_configuration_is_the_policy_one_to_one():
    assert set(CacheConfig.model_fields) == {field.name for field in fields(CachePolicy)}


def test_the_wrong_role_names_the_right_command(write):
    with pytest.raises(
        ConfigError,
        match=r"^edge\.yaml: role: this file is for role edge; run cdn edge -c edge\.yaml",
    ):
        load_shield(write(edge=EDGE), {})
    with pytest.raises(ConfigError, match=r"run cdn shield -c shield\.yaml"):
        load_edge(write(shield=SHIELD), {})


ENVIRON = {"T": "0123456789abcdef", "SHORT": "s3cret"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("listen:", "listne:", "3: listne: is not a key here; did you mean listen?"),
        ("    url:", "    ulr:", "6: shields[0].ulr: is not a key here; did you mean url?"),
        ("role: edge", "role: edge\nzzz: 1", "2: zzz: is not a key here; the keys are "),
        ("name: edge-a\n", "", "1: name: is missing; write e.g. name: edge-a"),
        ("    url: http://127.0.0.1:8180\n", "", "5: shields[0].url: is missing; write e.g. "),
        ("127.0.0.1:8080", "[]", "3: listen: is empty; write at least one"),
        ("127.0.0.1:8080", "", "3: listen: an empty value is not a list; write "),
        ("role: edge\n", "", "1: role: is missing; write role: edge or role: shield"),
        ("role: edge", "role: egde", "1: role: 'egde' is not a role; "),
        ("role: edge", "role: [edge]", "1: role: ['edge'] is not a role; "),
        ("127.0.0.1:8080", "8080", "3: listen: 8080 is not a list; write "),
        ("127.0.0.1:8080", "[a:1, 8080]", "3: listen[1]: 8080 is not HOST:PORT; write "),
        ("127.0.0.1:8080", "nohost", "3: listen: 'nohost' is not HOST:PORT; write "),
        ("127.0.0.1:8080", "[a:1, b:1, a:1]", "3: listen: a:1 is given twice; keep one"),
        ("http://127", "htp://127", "6: shields[0].url: 'htp://127.0.0.1:8180' is not an http"),
        ("edge-a", "a b", "2: name: 'a b' is not a name; write "),
        ("edge-a", "7", "2: name: 7 is not a name; write "),
        ("edge-a", "'7'", "2: name: '7' does not begin with a letter; write e.g. node-7"),
        (
            "8180\n",
            "8180\n    weight: 0\n",
            "7: shields[0].weight: 0 will not do; write a value greater than 0",
        ),
        ("8180\n", "8180\n    weight: x\n", "7: shields[0].weight: 'x' is not a number; "),
        (
            "services:",
            "  - {name: yokohama, url: http://b}\nservices:",
            "4: shields: two shields are named yokohama; ",
        ),
        (
            "services:",
            "  - {name: b, url: http://127.0.0.1:8180}\nservices:",
            "4: shields: http://127.0.0.1:8180 is given twice; ",
        ),
        ("services/*.yaml", "", "7: services: is missing; write e.g. services: services/*.yaml"),
        ("services/*.yaml", "7", "7: services: 7 is not a path or list of paths; "),
        ("services/*.yaml", "[services/*.yaml, 7]", "7: services[1]: 7 is not a path; "),
        ("services/*.yaml", "svc/*.yaml", "7: services: 'svc/*.yaml' matches no file in .; "),
    ],
)
def test_each_mistake_in_a_node_is_one_line(write, old, new, told):
    assert old in EDGE
    lines = problems(write(edge=EDGE.replace(old, new, 1)))
    assert any(line.startswith(f"edge.yaml:{told}") for line in lines), lines


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("memory: 5MB", "memory: '5MB' is not a size; write 5MiB"),
        ("memory: 5", "memory: 5 is too little; write 1MiB or more"),
        ("operator: [x]", "operator: ['x'] is not an operator's"),
        ("operator: 'a\"b'", "operator: 'a\"b' is not an operator's"),
        ("access_log: 1", "access_log: 1 is not a path; "),
        (
            "direct_to_origin: yes",
            "direct_to_origin: 'yes' is not true or false; write true or false",
        ),
        ("deadlines: {idle: 0s}", "deadlines.idle: a deadline of no time"),
        ("deadlines: 3s", "deadlines: '3s' is not a mapping; "),
        (
            "prefixes: [10.0.0.1/8]",
            "prefixes[0]: '10.0.0.1/8' has bits set after its prefix; write 10.0.0.0/8",
        ),
        (
            "admin: {listen: 127.0.0.1:8080, token_env: T}",
            "admin: 127.0.0.1:8080 is the viewers' address already; ",
        ),
        (
            "admin: {listen: a:1}",
            "admin.token_env: an admin listener on TCP needs a bearer token; write ",
        ),
        (
            "admin: {listen: a:1, token_file: t, token_env: T}",
            "admin.token_env: token_file says it already; ",
        ),
        (
            "admin: {listen: a:1, token_env: NO}",
            "admin.token_env: the environment has no NO; export NO=",
        ),
        (
            "admin: {listen: a:1, token_env: SHORT}",
            "admin.token_env: SHORT holds no usable secret; ",
        ),
        ("disk: 1GiB", "disk: there is no store; name its directory, or leave this out"),
        ("disk: 1GB", "disk: '1GB' is not a size; write 1GiB"),
        ("admission: some", "admission: 'some' will not do; write a value 'all' or 'reuse'"),
        ("workers: 0", "workers: 0 is not a number of workers; write 1 to 64, or auto"),
        ("workers: true", "workers: true is not a number of workers; "),
        ("admin: {listen: a:1, token_env: 1}", "admin.token_env: 1 is not a variable's name; "),
        ("admin: {listen: a:1, token_file: 1}", "admin.token_file: 1 is not a path; "),
    ],
)
def test_each_mistake_in_what_a_node_may_say(write, tmp_path, added, told):
    (tmp_path / "t").write_text("0123456789abcdef")
    (line,) = problems(write(edge=f"{EDGE}{added}\n"), ENVIRON)
    assert line.startswith(f"edge.yaml:8: {told}")
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: films\n", "", "1: name: is missing; write e.g. name: films"),
        ("[films.example]", "films.example", "2: hosts: 'films.example' is not a list; "),
        ("[films.example]", "[]", "2: hosts: is empty; write at least one"),
        ("films.example", "films.example:80", "2: hosts[0]: 'films.example:80' is not a host"),
        ("films.example", "a, A", "2: hosts: a is given twice"),
        ("127.0.0.1:9000", "a/path", "3: origins[0]: 'http://a/path' is not an http"),
        ("origins", "origin", "3: origin: is not a key here; did you mean origins?"),
    ],
)
def test_each_mistake_in_a_service_is_one_line(write, old, new, told):
    assert old in FILMS
    lines = problems(write(edge=EDGE, films=FILMS.replace(old, new, 1)))
    assert any(line.startswith(f"services/films.yaml:{told}") for line in lines), lines


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("store: s", "1: disk: the store needs to know how much of its disk it may use; write a"),
        ("store: 1\ndisk: 1GiB", "8: store: 1 is not a path; write the path of a directory"),
        ("store: s\ndisk: 1GB", "9: disk: '1GB' is not a size; write 1GiB"),
        (
            "store: s\ndisk: 100MiB",
            "7: services: films has slices of 1MiB, too large for a disk of 100MiB; "
            "write disk: 180MiB or more, or a smaller cache.slice_size",
        ),
    ],
)
def test_each_mistake_about_a_store(write, added, told):
    (line,) = problems(write(edge=f"{EDGE}{added}\n"))
    assert line.startswith(f"edge.yaml:{told}")


def test_a_store_is_beside_its_file_and_worked_on_by_every_cpu(write, tmp_path):
    path = write(edge=EDGE + "store: kept\ndisk: 180MiB\nadmission: reuse\n")
    config = load(path, {})
    assert (config.store, config.disk) == (tmp_path / "kept", 180 * 2**20)
    assert config.admission == "reuse"
    assert config.workers == len(os.sched_getaffinity(0))
    assert config.largest_slice == 2**20
    assert load(write(edge=EDGE + "store: /s\ndisk: 1TiB\n"), {}).largest_slice == 2**24
    assert load(write(edge=EDGE), {}).workers == 1
    for many in (1, 5):
        more = f"store: /s\ndisk: 1TiB\nworkers: {many}\n"
        assert load(write(edge=EDGE + more), {}).workers == many


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (8, 8), (128, 64)])
def test_workers_by_the_number_of_cpus(cpus, workers):
    raw = {"role": "edge", "name": "e", "listen": "a:1", "direct_to_origin": True, "services": ()}
    context = Context(Path(), {}, cpus)
    stored = EdgeConfig.model_validate(raw | {"store": "s", "disk": "1GiB"}, context=context)
    assert stored.workers == workers
    assert EdgeConfig.model_validate(raw, context=context).workers == 1
    assert EdgeConfig.model_validate(raw | {"workers": 3}, context=context).workers == 3


@pytest.mark.parametrize(
    ("added", "told"),
    [
        (
            "cache: {slice_size: 100KiB}",
            "cache.slice_size: '100KiB' is not a slice's size; write a power of two from 64KiB to",
        ),
        ("cache: {slice_size: 32KiB}", "cache.slice_size: '32KiB' is not a slice's size; "),
        ("cache: {slice_size: 32MiB}", "cache.slice_size: '32MiB' is not a slice's size; "),
        (
            "cache: {heuristic_fraction: 2}",
            "cache.heuristic_fraction: 2 will not do; write a value less than or equal to 1",
        ),
        (
            "cache: {hit_for_miss: 30}",
            "cache.hit_for_miss: 30 is a time without its unit; write e.g. 30s",
        ),
        (
            "cache: {stale_if_eror: 1s}",
            "cache.stale_if_eror: is not a key here; did you mean stale_if_error?",
        ),
        (
            "deadlines: {first_byte: 34s}",
            "deadlines: a shield may take 40s over it, and edge.yaml waits 40s for a shield; ",
        ),
        ("name: zoo", "name: is given twice, first in line 1; keep one"),
    ],
)
def test_each_mistake_in_what_a_service_may_say(write, added, told):
    (line,) = problems(write(edge=EDGE, films=f"{FILMS}{added}\n"))
    assert line.startswith(f"services/films.yaml:4: {told}")


def test_all_problems_of_all_files_at_once(write, tmp_path):
    path = write(edge=EDGE.replace("edge-a", "'1'").replace("http://127", "ftp://127") + "x: 1\n")
    (tmp_path / "services/news.yaml").write_text("name: films\nhosts: [n, films.example]\n")
    (tmp_path / "services/zoo.yaml").write_text("name: [\n")
    (tmp_path / "services/yak.yaml").write_text("name: y\nhosts: [y:1]\n")
    assert [line.rpartition("; ")[0] for line in problems(path)] == [
        "services/yak.yaml:2: hosts[0]: 'y:1' is not a host name",
        "services/zoo.yaml:2: is not YAML: expected the node content, but found '<stream end>'",
        "edge.yaml:2: name: '1' does not begin with a letter",
        "edge.yaml:6: shields[0].url: 'ftp://127.0.0.1:8180' is not an http or https URL of a host",
        "edge.yaml:8: x: is not a key here",
        "services/news.yaml:1: name: 'films' is taken by services/films.yaml:1",
        "services/news.yaml:2: hosts[1]: 'films.example' is taken by services/films.yaml:2",
    ]


def test_an_edge_with_nowhere_to_go(write):
    lonely = "role: edge\nname: e\nlisten: a:1\nservices: services/*.yaml\n"
    (line,) = problems(write(edge=lonely))
    assert line.startswith("edge.yaml:1: direct_to_origin: this edge has no shields and may not")
    assert load(write(edge=lonely + "direct_to_origin: true\n"), {}).shields == ()


def test_whoever_asks_origins_needs_them(write):
    bare = "name: films\nhosts: [films.example]\n"
    told = ["services/films.yaml:1: origins: is missing, and shield.yaml asks origins itself"]
    assert [p.rpartition(";")[0] for p in problems(write(shield=SHIELD, films=bare))] == told
    assert problems(write(edge=EDGE + "direct_to_origin: true\n", films=bare))
    assert load(write(edge=EDGE, films=bare), {}).services[0].origins == ()


def test_a_shield_believes_someone(write):
    (line,) = problems(write(shield=SHIELD.replace("[127.0.0.0/8]", "[]")))
    assert line.startswith("shield.yaml:4: edges.secret_file: no edge would be believed; ")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot be read: No such file or directory; make it with: openssl rand -hex 32 > "),
        (b"", "holds no usable secret; "),
        (b"two words here\n", "holds no usable secret; "),
        (b"\xff" * 20, "holds no usable secret; "),
    ],
)
def test_a_secret_that_cannot_be_used(write, tmp_path, content, line):
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    (told,) = problems(write(shield=SHIELD.replace("}", ", secret_file: s}")))
    assert told.startswith(f"shield.yaml:4: edges.secret_file: {tmp_path}/s {line}")


def test_a_unix_socket_needs_no_token(write):
    config = load(write(edge=EDGE + "admin: {listen: unix:/run/x.sock}\n"), {})
    assert config.admin.token is None


def test_a_file_that_two_globs_match_is_one_service(write):
    text = EDGE.replace("services/*.yaml", "[services/*.yaml, services/films.yaml]")
    assert len(load(write(edge=text), {}).services) == 1


def test_what_a_reload_cannot_change(write, tmp_path):
    admin = "admin: {listen: a:1, token_file: t}\n"
    (tmp_path / "t").write_text("0123456789abcdef")
    old = load(write(edge=EDGE + admin), {})
    assert isinstance(old, EdgeConfig)
    assert load(write(edge=EDGE + admin), {}) == old

    new = load(write(edge=EDGE + admin, films=FILMS + "origin_host: o\n"), {})
    assert new != old
    assert needs_restart(old, new) == []

    new = load(write(edge=EDGE + admin + "operator: X\naccess_log: '-'\n"), {})
    assert needs_restart(old, new) == ["operator", "access_log"]

    (tmp_path / "t").write_text("another-0123456789")
    new = load(write(edge=EDGE.replace("8080", "8088") + admin + "memory: 1MiB\n"), {})
    assert needs_restart(old, new) == ["listen", "admin", "memory"]

    new = load(write(edge=EDGE + admin + "store: s\ndisk: 1GiB\nadmission: reuse\n"), {})
    assert needs_restart(old, new)[:3] == ["admin", "store", "disk"]
    assert "admission" in needs_restart(old, new)

    shield = load(write(shield=SHIELD), {})
    assert isinstance(shield, ShieldConfig)
    assert needs_restart(old, shield) == ["role", "name", "listen", "admin"]
