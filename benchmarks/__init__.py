"""Side-by-side runs against the other tools, and time and memory against size."""
