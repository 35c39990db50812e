"""Charts: columns to curves to figures."""
