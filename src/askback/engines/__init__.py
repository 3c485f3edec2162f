"""The heavy world, loaded on demand: whatever answers the calls of `ports`."""
