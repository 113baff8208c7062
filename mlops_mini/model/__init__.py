"""What is trained from a table: training, evaluation, digest, publishing."""
