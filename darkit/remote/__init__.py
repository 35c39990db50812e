"""Homes of other folders and machines, which are only read: their addresses, and copies of their small files."""
