"""How the scales of a layer are found, one algorithm a file."""
