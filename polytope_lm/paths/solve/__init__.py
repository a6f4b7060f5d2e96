"""Where a path changes sign: closed forms on lines and arcs, interpolants elsewhere."""
