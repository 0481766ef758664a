"""What training scripts call: run, checkpoint, optimiser, validation, report. accelerate lives here."""
