"""What may be concluded from counts, however often one looks; knows no traffic and no model."""
