"""Measures of where a token or a pair lies in the partition, and of how bent the map between two points is."""
