"""Every real service the pipeline needs, on this machine, without Docker: `python -m devstack up`.

Promises: everything listens on loopback only; nothing outside this clone is touched, save PostgreSQL's data when root
runs it (it lies where user `postgres` can reach it); whatever was killed, with -9 too, the next `up` works. Services
are recognised by their command line in /proc, never by a pid file, so there is nothing that can be stale.
"""
