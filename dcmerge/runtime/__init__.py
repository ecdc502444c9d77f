"""Threads, processes, peak memory and small files of state: what the machine gives."""
