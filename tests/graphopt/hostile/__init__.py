"""Hostile and huge inputs, each in a process under limits: one sentence or a right result, never anything else."""
