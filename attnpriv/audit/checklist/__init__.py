"""Behavioural tests from a file: answers that must not depend on words that do not matter."""
