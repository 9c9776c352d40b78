"""Malicious URLs: labelled URLs, a leak-checked classifier, batch scoring on Spark, a SQL data mart."""
