"""What a polytope and its map are like."""
