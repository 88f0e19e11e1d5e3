"""Studies of the shipped models: HEF, reward accuracy, simulated votes, side by side."""
