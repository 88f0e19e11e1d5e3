"""Messages to tokens: templates, and the marks of turns and thoughts."""
