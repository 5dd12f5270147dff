"""Version 1 of the wire contract, generated from proto/scout/v1 by `make proto`."""
