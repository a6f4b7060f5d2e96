"""Prediction 1: are regions named by codes more monosemantic than directions."""
