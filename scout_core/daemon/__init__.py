"""What both daemons share as processes: settings, logs, readiness, the torch thread, shutdown.

It knows nothing about sessions, models or the wire.
"""
