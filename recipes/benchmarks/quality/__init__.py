"""Each recipe at several budgets: ours against full training for fewer steps."""
