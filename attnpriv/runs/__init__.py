"""Run folders: what is in one, its model card, and the probabilities its model gives."""
