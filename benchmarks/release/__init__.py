"""What an answer gives away under each policy, and what it is worth: ``-m benchmarks.release``."""
