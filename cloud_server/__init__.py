"""The cloud daemon: hosts the large model, receives payloads, streams answers."""
