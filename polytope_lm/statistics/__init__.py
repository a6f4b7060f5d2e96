"""Scores of a grouping of tokens, and what may be concluded from them."""
