"""The web server of the dashboard: who may ask, and how it is answered."""
