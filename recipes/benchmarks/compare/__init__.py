"""What people would do instead, at equal cost: every peer method against ours, on real data."""
