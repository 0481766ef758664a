"""How sure and how varied a classifier finds a collection of images."""
