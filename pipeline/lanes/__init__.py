"""Lanes: one queue per merchant and consumer, taken in turns.

A lane is the Redis list of a merchant's events that a consumer has not accepted yet, in Kafka's order. A turn claims
the heads of one or more lanes for one worker under a token; events leave a lane only when the holder of the token
says that the sink has them. So a merchant's events never overtake each other, whatever dies in between, and a lane
that fails waits alone. Redis may be lost: everything in a lane is still in Kafka, below the committed offset.

``store`` is the lanes in Redis, ``turn`` what a worker does with a claim, ``held`` the turns a process has in hand,
``request`` and ``transport`` the way from a claim to a Celery task and back, ``worker`` what Celery's own does otherwise. ``held_tasks``, ``task_messages`` and
``task_request`` are the same for ordinary Celery tasks, whose lanes have no bridge behind them.
"""
