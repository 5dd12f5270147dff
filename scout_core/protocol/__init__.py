"""Sans-io protocol room: session state machines, credit, reassembly, the block frame.

Nothing here imports torch, grpc, protobuf or asyncio, reads a clock or logs; see README.md.
"""
