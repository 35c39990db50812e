"""The web server of the dashboard: access, and answers."""
