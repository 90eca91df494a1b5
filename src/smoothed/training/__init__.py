"""Training: configurations, recipes, losses, schedules, the training loop and its resumable state."""
