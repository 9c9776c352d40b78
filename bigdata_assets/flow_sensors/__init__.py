"""Anomalies of flow sensors: Cassandra, Kafka, windows of samples, and models that are judged beside a rule."""
