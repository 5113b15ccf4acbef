"""More than one process or machine: what is measured on this one, and a simulation of more."""
