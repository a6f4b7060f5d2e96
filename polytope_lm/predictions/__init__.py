"""Predictions of the polytope lens, each a claim that can be false."""
