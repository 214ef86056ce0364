"""A local stand-in for an Amazon Redshift cluster.

An asyncio server that speaks Redshift's dialect of the PostgreSQL protocol over TLS to the real
redshift-connector, runs the SQL on a PostgreSQL 15 database behind it, and reads COPY's files from a real
S3 endpoint. It guarantees one thing: **what it accepts, Redshift accepts too**, for the statements this
project's loader uses. Everything else is refused, either as Redshift refuses it or, for what Redshift knows
and this does not cover, with a message that begins "not covered by the stand-in".

It proves protocol, SQL shape, transactions, locks and conversions; it proves nothing about speed at scale,
slices, queues or IAM. `docs/redshift-stand-in.md` lists the limits.

Reading order: `server` (sockets), `session` (one client), `rewrite` (which SQL is let through and how it
reads in PostgreSQL), `load` (COPY).
"""
