"""Audit of trained runs by measurement and attack; each attack with its two controls."""
