"""Paths between prompts and the polytope boundaries that they cross."""
