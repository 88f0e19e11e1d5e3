"""`evaluate hef`: does the SEM's guidance help? Answers under four conditions, judged and paired."""
