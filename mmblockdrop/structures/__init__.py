"""Times and segments."""
