"""Prediction 1 for mixtures of experts: do paths through the routers mean more than directions and single routers."""
