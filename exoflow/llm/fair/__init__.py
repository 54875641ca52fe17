"""Fair scheduling of LLM requests."""
