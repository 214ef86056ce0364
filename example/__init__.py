"""A payment company to run the pipeline on: four databases, rows that exist beforehand, and traffic.

Nothing in here knows the pipeline. `schema` makes the databases, `seed` fills them, `traffic` keeps them busy and
counts every row change it committed, and `check` compares them with Elasticsearch and Redshift in plain SQL.
"""
