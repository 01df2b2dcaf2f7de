"""The little of the Kubernetes API that the harness itself needs, over the standard library."""

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

from .credentials import credentials
from .layout import ADMIN_TOKEN, Instance


class RefusedError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status


class Api:
    """Requests as the admin, each on a connection of its own."""

    def __init__(self, instance: Instance) -> None:
        self._host = instance.node_ip
        self._tls = ssl.create_default_context(cafile=str(credentials(instance).certificate))

    def get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path)

    def create(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", path, manifest)

    def delete(self, path: str) -> None:
        self._json("DELETE", path)

    def healthy(self, path: str = "/readyz") -> bool:
        """Whether a health endpoint says so; false while nothing listens."""
        try:
            connection, response = self._send("GET", path, None, 5.0)
        except OSError:
            return False
        connection.close()
        return response.status == http.client.OK

    def watch(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (ADDED, MODIFIED or DELETED, object) from the present state on, until the server ends it."""
        connection, response = self._send("GET", f"{path}?watch=1", None, None)
        try:
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection, response = self._send(method, path, body, 30.0)
        try:
            answer = response.read().decode()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise RefusedError(response.status, answer)
        document: dict[str, Any] = json.loads(answer)
        return document

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float | None
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(self._host, 6443, timeout=timeout, context=self._tls)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        return connection, connection.getresponse()
