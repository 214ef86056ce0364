#!/bin/bash
# Run once by the image on an empty cluster, as the superuser `devstack`.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -v password="$POSTGRES_PASSWORD" --dbname devstack <<'SQL'
create extension pgq;
create role app login password :'password';
create role pipeline login password :'password';
grant app, pgq_admin, pg_monitor to pipeline;
create database control owner pipeline;
create database warehouse owner devstack;
SQL
