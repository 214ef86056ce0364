"""Numbered records into Kafka, as a relay publishes changes: real envelopes, a merchant's in one partition, in order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from itertools import accumulate

from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.publisher import Publisher, PublishError
from pipeline.domain.version import pack
from pipeline.errors import TransientError
from pipeline.settings import Settings

_ROUND = 0.05  # seconds
_PATIENCE = 15.0  # seconds without an acknowledgement until the client is replaced
_TOGETHER = 1000  # records at the beginning


class Load:
    """A thread that appends the next numbers of merchants by Zipf's law, at `rate` a second; first one of every merchant.

    ``acknowledged``: the highest number of each merchant that Kafka has.
    """

    def __init__(self, settings: Settings, merchants: Sequence[str], rate: float, seed: int) -> None:
        self.acknowledged = dict.fromkeys(merchants, 0)
        self.count = 0
        self.failure: Exception | None = None
        self._settings = settings
        self._merchants = merchants
        self._rate = rate
        self._dice = random.Random(seed)
        self._weights = list(accumulate(1 / rank for rank in range(1, len(merchants) + 1)))
        self._next = dict.fromkeys(merchants, 0)
        self._ev = self._tick = 0
        self._again = threading.Event()
        self._stop = threading.Event()
        self._abandon = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, at_once: bool = False) -> None:
        """End, once Kafka has acknowledged what was begun; raises what ended it before."""
        self._stop.set()
        if at_once:
            self._abandon.set()
        self._thread.join()
        if self.failure is not None and not at_once:
            raise self.failure

    def repeat(self) -> None:
        """Publish the next batch twice, as a relay does that died before it had finished the first time."""
        self._again.set()

    def _run(self) -> None:
        try:
            self._publish()
        except Exception as error:  # noqa: BLE001  whoever stops the load is told
            self.failure = error

    def _publish(self) -> None:
        self._publisher = self._opened()
        for start in range(0, len(self._merchants), _TOGETHER):
            self._send(self._merchants[start : start + _TOGETHER])
        began, sent = time.monotonic(), 0
        while not self._stop.wait(_ROUND):
            due = int((time.monotonic() - began) * self._rate) - sent
            if due > 0:
                # After an outage what was not sent is not made up for at once.
                due = min(due, round(self._rate))
                sent = int((time.monotonic() - began) * self._rate)
                self._send(self._dice.choices(self._merchants, cum_weights=self._weights, k=due))
        self._publisher.close()

    def _opened(self) -> Publisher:
        topic, environment = self._settings.datastream, self._settings.environment
        while True:
            try:
                producer = KafkaPythonProducer(
                    environment.kafka_bootstrap_servers,
                    client_id="chaos",
                    security=environment.kafka_security,
                )
            except TransientError:
                if self._abandon.wait(1):
                    raise
            else:
                return Publisher(producer, {topic.topic: topic.partitions}, patience=_PATIENCE)

    def _send(self, merchants: Sequence[str]) -> None:
        self._tick += 1
        batch = [(merchant, self._envelope(merchant)) for merchant in merchants]
        left = 2 if self._again.is_set() else 1
        self._again.clear()
        while left:
            try:
                for merchant, value in batch:
                    self._publisher.send(self._settings.datastream.topic, merchant, value)
                self._publisher.settle(self._abandon.is_set)
                left -= 1
            except PublishError:  # as the next relay does: the whole batch again
                self._publisher = self._opened()
        for merchant in merchants:
            self.acknowledged[merchant] += 1
        self.count += len(merchants)

    def _envelope(self, merchant: str) -> bytes:
        self._ev += 1
        self._next[merchant] = number = self._next[merchant] + 1
        now = int(time.time() * 1000)
        return (
            f'{{"e":1,"op":"c","src":"chaos","table":"public.numbers","type":"number","key":{{"id":{number}}},'
            f'"merchant":"{merchant}","ver":"{pack(1, self._ev)}","gen":1,"ev":{self._ev},"sub":0,"txid":{self._ev},'
            f'"tick":{self._tick},"ts_ms":{now},"pub_ms":{now},"schema":"0123456789abcdef","before":null,'
            f'"after":{{"id":{number},"note":"{"x" * 200}"}}}}'
        ).encode()
