"""Elasticsearch 9.5: one node from the jars of `pom.xml` and a launcher of our own, for want of an official archive.

What the official distribution adds (`_delete_by_query`, scripts, x-pack, ...) is missing here, so code that runs here
runs there; `DevElasticsearch.java` supplies the few analysis parts the search mapping uses, under their official names.
"""
