"""Use of trained models: texts from prompts and sources, and measures of both families."""
