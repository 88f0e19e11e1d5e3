"""Models on other machines, through servers that speak OpenAI's protocol."""
