"""What `cdn status`, `cdn purge` and `cdn reload` use to talk to a running node.

Strategy: the standard library's HTTP client, one connection a call, over TCP or a Unix socket.
Whatever goes wrong becomes an `AdminError` of one line that says what to do.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cdn.control.protocol import ReloadReport

TOKEN_VARIABLE = "CDN_ADMIN_TOKEN"  # noqa: S105  (its name, not its value)

TIMEOUT = 30.0
"""Seconds without a byte from the node; a reload reads and checks every file."""


class AdminError(Exception):
    """The node could not be asked, or said no: one line for the operator, with the mend."""


def read_token(path: str | None, environ: Mapping[str, str]) -> str | None:
    """The token in the file at `path`, else in the environment's CDN_ADMIN_TOKEN, else None.

    Raises AdminError when the file cannot be read or holds no token.
    """
    if path is None:
        where, text = TOKEN_VARIABLE, environ.get(TOKEN_VARIABLE)
        if text is None:
            return None
    else:
        where = path
        try:
            with open(path, encoding="ascii") as file:
                text = file.read()
        except OSError as error:
            raise AdminError(f"token file {path}: {error.strerror}: name a readable file") from None
        except UnicodeDecodeError:
            text = ""
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise AdminError(f"{where}: no token: write one word of ASCII letters and digits there")
    return token


class AdminClient:
    """Asks the node at `admin`: HOST:PORT, http://HOST:PORT or unix:/path.

    Every method raises AdminError.
    """

    def __init__(self, admin: str, token: str | None = None) -> None:
        self._admin = admin
        self._token = token
        self._host, self._port, self._path = _parse(admin)

    def status(self) -> dict[str, Any]:
        """What the node says of itself."""
        return self._ask("GET", "/v1/status", expects=set())

    def purge(self, url: str) -> int:
        """How many stored responses were removed."""
        answer = self._ask("POST", "/v1/purge", {"url": url}, expects={"removed"})
        return int(answer["removed"])

    def reload(self) -> ReloadReport:
        """The node's report, also where it kept its old configuration."""
        answer = self._ask("POST", "/v1/reload", expects={"ok", "messages"})
        return ReloadReport(answer["ok"], answer["messages"])

    def _ask(
        self, method: str, target: str, content: object = None, *, expects: set[str]
    ) -> dict[str, Any]:
        fields = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        body = None if content is None else json.dumps(content)
        status, text = self._exchange(method, target, body, fields)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        # 409 is a reload that changed nothing: a report like any other.
        refused = status not in (200, 409)
        expects = {"error", "mend"} if refused else expects
        if not isinstance(answer, dict) or not expects <= answer.keys():
            raise AdminError(
                f"what answers at {self._admin} is no node's admin listener: "
                "is this the viewers' port?"
            )
        if refused:
            raise AdminError(f"{self._admin}: {answer['error']}: {answer['mend']}")
        return answer

    def _exchange(
        self, method: str, target: str, body: str | None, fields: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, target, body, fields)
            response = connection.getresponse()
            return response.status, response.read()
        except (ConnectionRefusedError, FileNotFoundError):
            raise AdminError(
                f"no node answers at {self._admin}: is it running, and is admin: set in its file?"
            ) from None
        except TimeoutError:
            raise AdminError(
                f"the node at {self._admin} did not answer within {TIMEOUT:.0f} s: look at its log"
            ) from None
        except PermissionError:
            raise AdminError(
                f"{self._admin}: permission denied: run this as the node's user"
            ) from None
        except socket.gaierror:
            raise AdminError(f"{self._admin}: the host name has no address") from None
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(
                f"{self._admin}: {type(error).__name__}: {error}: is this a node's admin listener?"
            ) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._path is not None:
            return _UnixConnection(self._path)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def _parse(admin: str) -> tuple[str, int, str | None]:
    if admin.startswith("unix:/"):
        return "", 0, admin.removeprefix("unix:")
    try:
        url = urlsplit(admin if "://" in admin else f"http://{admin}")
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or not port or url.scheme != "http" or url.path not in ("", "/"):
        raise AdminError(
            f"{admin}: not an admin address: write HOST:PORT, http://HOST:PORT or unix:/path"
        )
    return host, port, None
