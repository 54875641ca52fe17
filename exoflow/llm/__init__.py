"""Task libraries for work with language models."""
