"""An OpenAI-compatible endpoint in front of an engine: ``model`` is the adapter's name."""
