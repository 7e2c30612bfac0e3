"""Files, messages and progress."""
