"""PostgreSQL to Kafka: every committed change of the captured tables, whole transactions, in order, at least once.

A generated trigger writes each row change into a PgQ queue inside the writer's own transaction. One relay per source
database reads the queue in batches of whole transactions, publishes each change under its merchant's key, and
finishes a batch only after Kafka has acknowledged every record of it. Rows older than the triggers come by a
snapshot whose versions lose against every change the snapshot could not see.

``catalog`` reads what is captured, ``triggers`` writes the SQL, ``install`` puts it into the source; ``relay`` is the
loop, ``queue`` its PostgreSQL, ``publisher`` its Kafka; ``snapshot`` runs inside the relay, between batches.
"""
