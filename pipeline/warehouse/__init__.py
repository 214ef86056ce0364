"""The warehouse: every row in Redshift, exactly once, half a minute after its commit.

Two halves that meet in the control database. **Staging** is a consumer: a turn's events are folded per sink key,
written as compressed CSV parts to S3, recorded in one transaction, and only then accepted. **Loading** runs per type
and one at a time: waiting parts are frozen into a batch, and one Redshift transaction copies them, drops what is
stale, merges the rest and writes the batch into the type's ledger. A batch that is in the ledger is never loaded
again, so a loader may die anywhere.

What it guarantees: nothing is accepted before its part is durable; a version never goes back; a deleted row keeps its
tombstone, so a late insert stays away; no value is changed without its column standing in ``_flags``.
"""
