"""`evaluate hef`: does the SEM's guidance help? Four conditions, judged and compared in pairs."""
