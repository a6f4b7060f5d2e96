"""Are boundaries dense where the model's output changes."""
