"""Small networks whose polytopes can be seen, and the loop that trains them and the small language models."""
