"""Runs: which partitions one is for, what is to be run again, how steps are executed, what is told of failures."""
