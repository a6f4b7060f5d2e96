"""Measures of a place in the partition, and of how bent the map between two places is."""
