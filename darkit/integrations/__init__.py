"""Other people's loops and logs: what other libraries write, read as runs, and runs written for them."""
