"""What would look the same if the claim were false."""
