"""The report of an audit under one ε for all of its figures."""
