"""Training: configurations, losses, schedules, the loop and its resumable state."""
