"""Prediction 2: do boundaries lie where meaning changes."""
