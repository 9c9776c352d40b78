#!/opt/venv/bin/python
"""Ask the broker after --bootstrap-server something; the official script is in a jar that the project does not have."""

import sys

from kafka import KafkaAdminClient

client = KafkaAdminClient(bootstrap_servers=sys.argv[2], request_timeout_ms=5_000)
sys.exit(all(broker["is_fenced"] for broker in client.describe_cluster()["brokers"]))
