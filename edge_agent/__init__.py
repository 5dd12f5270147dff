"""The edge daemon: scores contexts, chooses a mode, streams the payload, relays the answer."""
