"""The testbed: rate traces, a userspace link emulator, and its virtual-time twin."""
