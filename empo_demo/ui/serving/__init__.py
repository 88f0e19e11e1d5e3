"""The server around the page: endpoints, routes, queues, probes, and what guards them."""
