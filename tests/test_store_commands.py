"""`cdn store …` as an operator types it."""

import json

import pytest
from typer.testing import CliRunner

from cdn.cli import app
from tests.storage.disk_kit import SLICE, content_of, files, flip, key_of, opened, put, response

GZIP = (("accept-encoding", "gzip"),)


@pytest.fixture
async def store(tmp_path):
    with opened(tmp_path / "s") as store:
        put(store, response("b[1]"), content_of("b", 2 * SLICE + 10))
        put(store, response("a", GZIP), b"gz")
        await store.flush()
    return str(tmp_path / "s")


def cdn(*words: str):
    return CliRunner().invoke(app, ["store", *words], env={"COLUMNS": "200"})


def test_stat(store):
    told = json.loads(cdn("stat", store, "--json").stdout)
    assert (told["objects"], told["slices"], told["closed_cleanly"]) == (2, 4, True)
    shown = cdn("stat", store).stdout
    assert f"store {store}" in shown
    assert "index bytes" in shown


def test_ls_by_url(store):
    first, second = json.loads(cdn("ls", store, "--json").stdout)
    assert first["url"] == key_of("a").decode()
    assert first["variant"] == [["accept-encoding", "gzip"]]
    assert second | {"received": ""} == {
        "url": key_of("b[1]").decode(),
        "variant": [],
        "status": 200,
        "length": 2 * SLICE + 10,
        "stored": 2 * SLICE + 10,
        "received": "",
    }
    shown = cdn("ls", store, "--prefix", key_of("b").decode()).stdout
    assert f"{key_of('b[1]').decode()} " in shown  # brackets are no markup
    assert shown.endswith("1 stored response\n")


def test_verify_ends_with_1_where_something_is_damaged(store, tmp_path):
    sound = cdn("verify", store)
    assert (sound.exit_code, sound.stdout.endswith(": all sound\n")) == (0, True)
    path = next(path for path in files(tmp_path / "s", "segment") if path.stat().st_size > SLICE)
    flip(path, 200)
    damaged = cdn("verify", store)
    assert damaged.exit_code == 1
    assert damaged.stdout.startswith(f"{path}: damaged at byte 0: {key_of('b[1]').decode()}\n")
    told = json.loads(cdn("verify", store, "--json").stdout)
    assert told["damaged"] == [{"segment": str(path), "offset": 0, "url": key_of("b[1]").decode()}]


@pytest.mark.parametrize("command", ["stat", "ls", "verify"])
def test_what_is_no_store_is_one_line(tmp_path, command):
    refused = cdn(command, str(tmp_path / "none"))
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"cdn store: {tmp_path}/none is not a store; name the directory given to --store\n"
    )
