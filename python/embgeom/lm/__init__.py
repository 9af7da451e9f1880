"""Running a language model: its layers, forward passes, tokens and continuations."""
