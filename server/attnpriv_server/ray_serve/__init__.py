"""Ray Serve in place of our own server: its gRPC proxies before replicas that have a core each.

``app`` is what a configuration of Ray Serve names, and ``proxy`` what its gRPC options name.
"""
