"""The exactly-once rules as a pure state machine: events in, commands out."""
