"""Explore: two contenders of one's choice, side by side, not blind and not stored."""
