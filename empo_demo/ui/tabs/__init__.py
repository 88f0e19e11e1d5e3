"""Board, Results, Data and About: what is read, and what is stored of a visitor."""
