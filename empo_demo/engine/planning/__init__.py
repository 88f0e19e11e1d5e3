"""What the contenders need of memory and disk, and whether it is there."""
