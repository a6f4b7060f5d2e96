"""The only door to transformers and TransformerLens."""
