"""Stores of every kind, for the tests of exchanges: one is opened for each node, over sockets if there are any."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hailproof.exchange.gate import Gate
from hailproof.exchange.object_store import ObjectStore
from hailproof.exchange.relay import RelayStore
from hailproof.exchange.stores import FolderStore, MemoryStore, Store
from hailproof.exchange.zenoh import ZenohStore

Opened = Callable[[], Store]
KINDS = ("local", "folder", "memory", "s3", "relay", "zenoh")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(app: Any, port: int = 0, **options: Any) -> Iterator[str]:
    """An ASGI application behind a socket of this machine; with a certificate among the options, over TLS."""
    import uvicorn

    port = port or free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http{'s' if options.get('ssl_certfile') else ''}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def s3_bucket() -> Iterator[tuple[str, dict[str, Any]]]:
    """An S3 server with an empty bucket: address and options."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="bucket")
    try:
        yield f"s3://bucket/{os.urandom(6).hex()}", {  # what was put lives as long as the process
            "endpoint": endpoint, "region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret",
            "virtual_hosted_style_request": False, "client_options": {"allow_http": True},
        }  # fmt: skip
    finally:
        server.stop()


@contextmanager
def opened_stores(kind: str, folder: Path, gate: Callable[[], Gate]) -> Iterator[Opened]:
    """A function that opens one more store over the same objects."""
    made: list[Store] = []

    def keep(store: Store) -> Store:
        made.append(store)
        return store

    def zenoh(port: int) -> Store:
        first = not made
        settings = {
            "listen/endpoints": f'["tcp/127.0.0.1:{port if first else 0}"]', "scouting/multicast/enabled": "false",
            "connect/endpoints": "[]" if first else f'["tcp/127.0.0.1:{port}"]',
        }  # fmt: skip
        own = gate()
        return ZenohStore(lambda name, data: own.take(name, data, again=True), settings)

    try:
        if kind == "local":
            shared = MemoryStore()
            yield lambda: keep(shared)
        elif kind == "folder":
            yield lambda: keep(FolderStore(folder))
        elif kind == "memory":
            bucket = ObjectStore("memory:///")
            yield lambda: keep(bucket)
        elif kind == "s3":
            with s3_bucket() as (url, options):
                yield lambda: keep(ObjectStore(url, options))
        elif kind == "relay":
            from hailproof.service.relay import Relay

            with served(Relay(FolderStore(folder), gate()).app) as url:
                yield lambda: keep(RelayStore(url))
        else:
            port = free_port()
            yield lambda: keep(zenoh(port))
    finally:
        for store in made:
            store.close()
