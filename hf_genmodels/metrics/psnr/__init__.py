"""Peak signal-to-noise ratio of images."""
