"""The shell around the kernel: carries out its commands, brings it events, runs flow bodies."""
