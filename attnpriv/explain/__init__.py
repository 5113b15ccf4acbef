"""Scores of one input: what attention, gradients and removals say about its tokens.

The audit takes statistics over many inputs; the server answers with the scores themselves.
"""
