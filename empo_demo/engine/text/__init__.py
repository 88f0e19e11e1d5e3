"""Messages to tokens and back: templates, control tokens, thoughts, detokenising."""
