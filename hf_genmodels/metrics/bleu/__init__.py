"""BLEU of translations, by sacrebleu."""
