"""The log of a run: rows for the CSV file, TensorBoard and the progress display."""
