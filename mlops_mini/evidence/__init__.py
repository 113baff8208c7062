"""What counts and measurements let one conclude, however often one looks; knows no model."""
