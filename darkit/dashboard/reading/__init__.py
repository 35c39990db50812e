"""Logs and small files of runs, read as they grow and kept in memory."""
