"""Further scores of groups of tokens, side by side."""
