"""What may be concluded from counts and measurements; it knows no traffic and no model."""
