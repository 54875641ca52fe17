"""What every server of ours has in common: how it listens, stops and logs, and who may ask."""
