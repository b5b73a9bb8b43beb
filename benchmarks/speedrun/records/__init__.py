"""One module for each record."""
