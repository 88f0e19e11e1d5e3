"""The Arena: a round on the page, from the box to the reveal."""
