"""Neurons beside polytopes."""
