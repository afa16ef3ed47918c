"""The operator console's room. It may import ``controller.api`` (client, data types) only."""
