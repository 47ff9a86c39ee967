"""The local training engine: pixels on the device, batches, and one client's epochs."""
