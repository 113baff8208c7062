"""What pieces run in environments of their own, which know nothing of ours."""
