"""How much generated texts repeat each other."""
