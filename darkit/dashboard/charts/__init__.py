"""Charts: from columns to figures."""
