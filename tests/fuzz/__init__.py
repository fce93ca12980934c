"""Fuzzing: random valid models, optimized in every way and compared with what they were."""
