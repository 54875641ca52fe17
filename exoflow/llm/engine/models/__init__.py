"""Models: where they come from, and what they compute."""
