"""Crimes: Chicago's reported crimes as a Kafka stream; arrest models tested on each batch, then trained on it."""
