"""Model card templates, installed as ``hf_genmodels.model_cards``."""
