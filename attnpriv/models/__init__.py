"""Small classifiers built on hardened attention, from scratch or from pretrained weights."""
