"""A client of the test's object store, signed as S3 wants it (AWS Signature Version 4)."""

import hashlib
import hmac
import http.client
import urllib.parse
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime

from .layout import S3_ACCESS_KEY, S3_SECRET_KEY, Instance

REGION = "us-east-1"
TIMEOUT_SECONDS = 30.0


class S3RefusedError(Exception):
    """The object store answered with an error."""


@dataclass(frozen=True)
class S3:
    """An object store that the host and the pods reach under the same endpoint."""

    endpoint: str
    access_key: str
    secret_key: str

    def make_bucket(self, bucket: str) -> str:
        """Make a bucket, unless an earlier run against this store has made it, and return its name."""
        try:
            self._request("PUT", f"/{bucket}")
        except S3RefusedError as error:
            if "BucketAlreadyOwnedByYou" not in str(error):
                raise
        return bucket

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._request("PUT", f"/{bucket}/{key}", data=data)

    def get(self, bucket: str, key: str) -> bytes:
        return self._request("GET", f"/{bucket}/{key}")

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of a bucket that begin with `prefix`, sorted; at most the store's page of 1,000."""
        query = {"list-type": "2", "prefix": prefix}
        document = ET.fromstring(self._request("GET", f"/{bucket}", query))  # noqa: S314 - our own server's answer
        return sorted(node.text or "" for node in document.iter() if node.tag.rpartition("}")[2] == "Key")

    def environment(self) -> dict[str, str]:
        """The variables by which boto, s3fs and pods find this store."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def _request(self, method: str, path: str, query: dict[str, str] | None = None, data: bytes = b"") -> bytes:
        url = urllib.parse.urlsplit(self.endpoint)
        host = url.netloc
        encoded = urllib.parse.quote(path)
        parameters = "&".join(
            f"{urllib.parse.quote(name, safe='')}={urllib.parse.quote(value, safe='')}"
            for name, value in sorted((query or {}).items())
        )
        headers = self._signed((method, encoded, parameters), host, data, datetime.now(UTC))
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(host, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, f"{encoded}?{parameters}" if parameters else encoded, data, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise S3RefusedError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        return answer

    def _signed(self, target: tuple[str, str, str], host: str, data: bytes, now: datetime) -> dict[str, str]:
        """The headers that sign a request for (method, path, query)."""
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(data).hexdigest()
        signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(signed)
        lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
        canonical = "\n".join([*target, lines, names, digest])
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret_key}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        credential = f"Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        return signed | {"authorization": f"AWS4-HMAC-SHA256 {credential}"}


def of(instance: Instance) -> S3:
    """The object store of a running instance."""
    return S3(instance.s3_endpoint, S3_ACCESS_KEY, S3_SECRET_KEY)
