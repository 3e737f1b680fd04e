"""Certificates in configuration: read with it, refused where they cannot work, told of when old."""

import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cdn.config.addresses import ListenAddress
from cdn.config.check import check
from cdn.config.loader import load
from cdn.config.models import needs_restart
from cdn.config.problems import ConfigError
from cdn.config.quick import quick_edge, quick_shield
from tests.config.config_trees import EDGE, SHIELD
from tests.kit import need, tls_contexts

DAY = 86_400.0
TLS = """\
tls:
  listen: 127.0.0.1:8443
  certificates:
    - cert: films/cert.pem
      key: films/key.pem
    - {cert: news/cert.pem, key: news/key.pem}
"""


@pytest.fixture(autouse=True)
def _certificates(tmp_path):
    tls_contexts(tmp_path / "films", "films.example", "*.Films.example")
    tls_contexts(tmp_path / "news", "news.example")


def lines(path: Path) -> list[str]:
    return [str(problem) for problem in check(path, {}).problems]


@pytest.mark.parametrize("node", [EDGE, SHIELD])
def test_a_node_with_certificates(write, tmp_path, node):
    config = load(write(edge=node + TLS), {})
    assert config.tls.listen == (ListenAddress("127.0.0.1", 8443),)
    films, news = config.tls.loaded
    assert films.cert == tmp_path / "films" / "cert.pem"
    assert films.key == tmp_path / "films" / "key.pem"
    assert films.names == ("films.example", "*.films.example")
    assert films.not_after - films.not_before == 2 * DAY
    assert isinstance(films.context, ssl.SSLContext)
    assert news.names == ("news.example",)
    assert load(Path("edge.yaml"), {}) == config


def test_tls_alone_is_enough_to_listen(write):
    config = load(write(edge=EDGE.replace("listen: 127.0.0.1:8080\n", "") + TLS), {})
    assert config.listen == ()
    (line,) = lines(write(edge=EDGE.replace("listen: 127.0.0.1:8080\n", "")))
    assert line == (
        "edge.yaml:1: listen: is missing; write e.g. listen: 127.0.0.1:8080, or a tls: that listens"
    )


def test_key_and_certificate_in_one_file(write, tmp_path):
    both = tmp_path / "both.pem"
    both.write_text("".join((tmp_path / "films" / f"{n}.pem").read_text() for n in ("key", "cert")))
    one = "tls: {listen: a:1, certificates: [{cert: both.pem}]}\n"
    (certificate,) = load(write(edge=EDGE + one), {}).tls.loaded
    assert certificate.cert == certificate.key == both
    (line,) = lines(write(edge=EDGE + one.replace("both", "films/cert")))
    assert line.startswith(
        "edge.yaml:8: tls.certificates[0].key: " + f"{tmp_path}/films/cert.pem holds no private key"
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("films/cert", "x", "11: tls.certificates[0].cert: {}/x.pem cannot be read: No such file"),
        ("films/key", "x", "12: tls.certificates[0].key: {}/x.pem cannot be read: No such file"),
        ("films/cert.pem", "1", "11: tls.certificates[0].cert: 1 is not a path; write "),
        (
            "films/key",
            "news/key",
            "12: tls.certificates[0].key: {}/news/key.pem is not the key of {}/films/cert.pem; ",
        ),
        (
            "films/cert",
            "films/key",
            "11: tls.certificates[0].cert: {}/films/key.pem holds no certificate; name ",
        ),
        ("127.0.0.1:8443", "[]", "9: tls.listen: is empty; write at least one"),
        ("127.0.0.1:8443", "127.0.0.1:8080", "3: listen: 127.0.0.1:8080 is the address for TLS "),
        ("cert: films", "crt: films", "11: tls.certificates[0].crt: is not a key here; did you m"),
        ("  listen: 127.0.0.1:8443\n", "", "8: tls.listen: is missing; write e.g. listen: "),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(write, tmp_path, old, new, told):
    found = lines(write(edge=EDGE + TLS.replace(old, new, 1)))
    told = told.replace("{}", str(tmp_path))
    assert any(line.startswith(f"edge.yaml:{told}") for line in found), found


def test_no_certificates_at_all(write):
    listed, _, _ = TLS.partition("    - cert")
    (line,) = lines(write(edge=EDGE + listed.replace("certificates:", "certificates: []")))
    assert line == "edge.yaml:10: tls.certificates: is empty; write at least one"


def test_a_file_with_rubbish_between_its_marks(write, tmp_path):
    (tmp_path / "films" / "cert.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
    )
    (line,) = lines(write(edge=EDGE + TLS))
    assert line.startswith("edge.yaml:12: tls.certificates[0].key: ")
    assert "cannot be used: OpenSSL says " in line


def test_a_locked_key_is_refused_without_asking_for_its_passphrase(write, tmp_path):
    key = tmp_path / "films" / "locked.pem"
    command = ["pkey", "-in", str(key.with_name("key.pem")), "-aes256", "-passout", "pass:secret"]
    subprocess.run([need("openssl"), *command, "-out", str(key)], check=True)
    (line,) = lines(write(edge=EDGE + TLS.replace("films/key", "films/locked")))
    assert line.startswith(
        f"edge.yaml:12: tls.certificates[0].key: the key in {key} is locked by a passphrase; write"
    )


def test_the_admin_listener_keeps_off(write):
    admin = "admin: {listen: 127.0.0.1:8443, token_env: T}\n"
    problems = check(write(edge=EDGE + TLS + admin), {"T": "0123456789"}).problems
    assert "127.0.0.1:8443 is the viewers' address already" in str(problems[0])


# -- dates


def test_an_old_certificate_is_a_problem_to_check_and_none_to_a_start(write, tmp_path):
    path = write(edge=EDGE + TLS)
    end = load(path, {}).tls.loaded[0].not_after
    assert not check(path, {}, now=lambda: end - 1).problems
    first, second = check(path, {}, now=lambda: end + DAY).problems
    assert str(first).startswith(
        f"edge.yaml:11: tls.certificates[0].cert: {tmp_path}/films/cert.pem has expired on 20"
    )
    assert str(first).endswith("; have it renewed, and reload")
    assert second.where == "tls.certificates[1].cert"
    first, _ = check(path, {}, now=lambda: end - 3 * DAY).problems
    assert "is not valid before 20" in str(first)
    assert load(path, {}).tls is not None


def test_the_end_is_told_two_weeks_before(write):
    (films, _) = load(write(edge=EDGE + TLS), {}).tls.loaded
    films, end = replace(films, not_before=0.0), films.not_after
    assert films.trouble(end - 14 * DAY - 1) == ""
    assert films.trouble(end - 14 * DAY) == f"expires on {films.expires()}"
    assert films.trouble(end) == f"has expired on {films.expires()}"


# -- reload


def test_certificates_change_by_reload_and_addresses_do_not(write, tmp_path):
    old = load(write(edge=EDGE + TLS), {})
    tls_contexts(tmp_path / "films", "films.example", "more.example")
    new = load(write(edge=EDGE + TLS), {})
    assert new != old
    assert needs_restart(old, new) == []
    new = load(write(edge=EDGE + TLS.replace("8443", "9443")), {})
    assert needs_restart(old, new) == ["tls.listen"]
    assert needs_restart(old, load(write(edge=EDGE), {})) == ["tls.listen"]


# -- flags

HERE = {"hostname": "tokyo1", "environ": {}, "origin": "http://127.0.0.1:9000"}


@pytest.mark.parametrize("quick", [quick_edge, quick_shield])
def test_the_flags_are_what_the_file_would_say(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    config = quick(
        tls_listen=["127.0.0.1:8443"], tls_cert="films/cert.pem", tls_key="films/key.pem", **HERE
    )
    assert config.listen == ()
    assert config.tls.listen == (ListenAddress("127.0.0.1", 8443),)
    assert config.tls.loaded[0].key == tmp_path / "films" / "key.pem"
    assert config.name == f"{config.role}-8443-tokyo1"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"tls_listen": ["a:1"]}, ["--tls-cert: is missing; write --tls-cert PATH, and "]),
        ({"tls_cert": "films/cert.pem"}, ["--tls-listen: is missing; ", "--tls-key: "]),
        (
            {"tls_listen": ["x"], "tls_cert": "no", "tls_key": "films/key.pem"},
            ["--tls-listen: 'x' is not HOST:PORT; ", "--tls-cert: "],
        ),
        (
            {"tls_listen": ["a:1"], "tls_cert": "films/cert.pem", "tls_key": "news/key.pem"},
            ["--tls-key: "],
        ),
    ],
)
def test_problems_name_the_flag(tmp_path, monkeypatch, flags, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        quick_edge(**HERE, **flags)
    found = [str(problem) for problem in caught.value.problems]
    assert all(line.startswith(words) for line, words in zip(found, told, strict=True)), found
