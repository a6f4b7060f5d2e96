"""Prediction 3: do polytope boundaries bound the validity of feature directions."""
