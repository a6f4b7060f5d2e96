"""Hamming distances and nearest neighbours of packed codes: exact, and approximate with a known recall."""
