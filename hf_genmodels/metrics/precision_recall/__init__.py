"""How many generated images are likely ones, and how many real ones could be generated."""
