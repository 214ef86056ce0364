"""From Kafka partitions to merchant lanes, one consumer at a time.

What it guarantees: each merchant's records enter that merchant's lane in Kafka order, once, however often they are
read; an offset is committed only when everything below it was accepted by the sink or set aside with its reason;
an emptied or damaged lane store is refilled from the committed offsets; memory stays bounded whatever the backlog,
because a partition whose lanes are full is paused. Rows that snapshots read go through lanes of their own, behind
everything live; a sweep is passed once all that stands before it in its partition is done, and that is recorded.

``dispatcher`` is the loop, on the ports; ``offsets``, ``pending``, ``commits`` and ``backpressure`` are its arithmetic;
``topics`` numbers partitions; ``consumer`` reads them as a member of the group, ``reread`` beside it, ``copied`` from what
``copying`` has copied before its retention was over; ``bookkeeping`` writes to the control database; ``start`` decides where a new consumer begins, ``identity`` whether its topics
are still the same; ``progress`` tells how far one has come.
"""
