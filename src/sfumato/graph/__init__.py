"""Who is whose neighbour, as plain index arrays."""
