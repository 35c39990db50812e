"""What the pages are made of: functions from what is known of runs to components."""
