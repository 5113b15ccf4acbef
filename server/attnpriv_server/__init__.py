"""The gRPC server: ``core`` answers and decides, ``wire`` carries, ``cli`` starts them."""
