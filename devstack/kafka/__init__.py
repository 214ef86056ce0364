"""Kafka 4.3: one KRaft node, broker and controller in one, from the jars of `pom.xml`."""
