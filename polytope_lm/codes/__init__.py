"""What a token becomes: packed spline codes in memory and on disk."""
