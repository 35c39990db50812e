"""The log of a training: rows on their way to the CSV file, TensorBoard and the progress display."""
