"""Capture measured alone: what its triggers cost writers, and how fast and how soon its relay brings changes into Kafka.

``writers`` compares tables without a trigger, with ours and with PgQ's own; ``draining`` relays one backlog again and
again, without a Kafka client and with each; ``commits`` watches from outside when a commit reaches Kafka; ``snapshots``,
``standby`` and ``memory`` are what their names say. ``run`` puts them in order, ``result`` makes the figures of them.
"""
