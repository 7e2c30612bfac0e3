"""What every package shares: files, messages, checkpoints, videos."""
