"""Images as records: their data sets, sources and files, and how models read them in patches."""
