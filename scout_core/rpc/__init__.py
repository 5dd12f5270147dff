"""The only room of scout_core that imports grpc: channels, servers, status map, streams.

It turns bytes and statuses into the events and errors of the pure rooms, and knows nothing about
models, policies or what a payload means.
"""
