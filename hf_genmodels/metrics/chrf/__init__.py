"""chrF of translations, by sacrebleu."""
