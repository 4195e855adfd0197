"""What can be tuned. Values only: this folder imports nothing of ours."""
