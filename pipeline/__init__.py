"""Every committed change of a merchant's rows, from PostgreSQL to Elasticsearch and Redshift.

The folders, read from left to right, are the way of the data: ``capture`` (PostgreSQL to Kafka),
``bridge`` (Kafka to merchant lanes), ``lanes`` (merchant lanes to Celery turns), ``search`` and
``warehouse`` (turns to Elasticsearch and Redshift), ``control`` (durable state), ``api`` and ``cli``.
"""
