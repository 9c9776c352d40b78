"""Strain of detectors: events in it, filters, Q-scans, and simulated signals."""
