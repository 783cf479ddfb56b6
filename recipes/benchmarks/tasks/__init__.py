"""Ways to share a budget among several tasks, compared at equal cost."""
