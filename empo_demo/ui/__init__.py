"""The page: layout, handlers and style. Holds no logic of its own; asks the arena."""
