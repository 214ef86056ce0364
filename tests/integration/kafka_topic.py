"""Topics from a test's side: everything in one, and a proxy on the way to the broker that can go deaf."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition


def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """Every record up to the ends as they are now, partition by partition in order."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, max_poll_records=10**6, fetch_max_wait_ms=50)
    try:
        partitions = [
            TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))
        ]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        records: dict[Any, list[Any]] = {partition: [] for partition in partitions}
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, polled in consumer.poll(1000).items():
                records[partition] += polled
        return [record for partition in partitions for record in records[partition]]
    finally:
        consumer.close()


def ended(producer: KafkaProducer) -> None:
    """What no process needs to do that simply exits: end a failed producer's thread, which would reconnect for ever."""
    producer._sender.force_close()
    producer._sender.join(10)
    assert not producer._sender.is_alive()
    producer._closed = True
    producer._unregister_cleanup()


class Proxy(socketserver.ThreadingTCPServer):
    """An HTTP CONNECT proxy; while `deaf` is set it accepts connections and passes nothing on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.deaf = threading.Event()

    @property
    def url(self) -> str:
        """For `proxy_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += self.request.recv(4096)
        host, _, port = request.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as broker:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self._pump, args=(broker, self.request), daemon=True)
            back.start()
            self._pump(self.request, broker)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        assert isinstance(self.server, Proxy)
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.server.deaf.is_set():
                    sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied() -> Iterator[Proxy]:
    """A proxy that listens until the end."""
    with Proxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
