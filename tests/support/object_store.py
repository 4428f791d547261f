"""An S3 server on this machine, for tests: moto's, in this process, on a free port."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class ObjectStore:
    """A bucket.

    Attributes:
        url: of the bucket.
        environment: what a client needs to find it.
    """

    url: str
    environment: dict[str, str]

    def upload(self, folder: Path, prefix: str) -> None:
        """Copy a folder into the bucket."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def put(self, key: str, content: bytes) -> None:
        import obstore

        obstore.put(self.client(), key, content)

    def delete(self, key: str) -> None:
        import obstore

        obstore.delete(self.client(), key)

    def client(self) -> Any:
        return _client(self.url, self.environment["AWS_ENDPOINT_URL"])


@cache
def _client(url: str, endpoint: str) -> Any:
    from obstore.store import from_url

    return from_url(url, endpoint=endpoint)


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Serve an empty bucket; the environment is the caller's to set before a client is made."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        request = urllib.request.Request(f"{endpoint}/plant", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        yield ObjectStore("s3://plant", environment)
    finally:
        server.stop()
