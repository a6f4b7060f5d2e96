"""What would look the same if the claim were false: one control a file."""
