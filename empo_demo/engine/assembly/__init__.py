"""Makes the copies that are served: merged where that is due, each after its trial."""
