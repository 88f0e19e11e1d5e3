"""HTML and plots out of replies and readings; every text is escaped here."""
