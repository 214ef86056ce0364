# PostgreSQL 15 with PgQ, and at first start the users and databases that `python -m devstack up` makes too.
FROM postgres:15-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-15-pgq3 \
 && rm -rf /var/lib/apt/lists/*
COPY docker/postgres-init.sh /docker-entrypoint-initdb.d/init.sh
