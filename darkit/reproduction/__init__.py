"""Running the first steps of a run again, from the code that it recorded, and comparing them with its record."""
