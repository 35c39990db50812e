"""The pages of the dashboard: layout and callbacks."""
