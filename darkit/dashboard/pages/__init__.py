"""The pages of the dashboard: layout and callbacks of each page; `routing` chooses the page of an address."""
