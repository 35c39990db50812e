"""Sources of records: files, folders and datasets, and their splits."""
