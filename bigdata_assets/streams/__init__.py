"""Kafka topics as partitioned assets: a topic is declared by a `Stream`, and a branch that has one gets its sensor."""
