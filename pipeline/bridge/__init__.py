"""From Kafka partitions to merchant lanes, one consumer at a time.

What it guarantees: each merchant's records enter that merchant's lane in Kafka order, once, however often they are
read; an offset is committed only when everything below it was accepted by the sink or set aside with its reason;
an emptied or damaged lane store is refilled from the committed offsets; memory stays bounded whatever the backlog,
because a partition whose lanes are full is paused.

``dispatcher`` is the loop, on the ports; ``offsets`` and ``backpressure`` are its arithmetic; ``consumer`` is the only
home of the Kafka client; ``start`` decides where a new consumer begins; ``progress`` tells how far one has come.
"""
