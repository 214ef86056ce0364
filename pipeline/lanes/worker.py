"""What Celery's worker does otherwise here: what it tells Flower goes out together, not one message per task and state."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

EVENTS_EVERY = 0.5  # seconds


class Worker(Consumer):  # type: ignore[misc]  # Celery has no types
    """Publishes task events twice a second, or when 24 have gathered. Stock: each by itself, at a round trip each."""

    def register_with_event_loop(self, hub: Any) -> None:
        """See Celery, which calls it with each connection and cancels the timers of the one before."""
        super().register_with_event_loop(hub)
        hub.call_repeatedly(EVENTS_EVERY, self._flush_events)

    def on_send_event_buffered(self) -> None:
        """An event waits: for the next time."""

    def shutdown(self) -> None:
        """Say the last, then stop."""
        self._flush_events()
        super().shutdown()
