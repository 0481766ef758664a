"""A model in the browser: one app for every family, and the same as a folder for a Space."""
