"""Options of the commands: dataclasses, and the parser that fills them from presets and flags."""
