"""How often is a test wrong on a user's own codes."""
