"""Allocation: who of many agents may send what, how fast, over one shared uplink."""
