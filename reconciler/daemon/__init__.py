"""The loop that binds the rooms: observe, decide, record the intent, act, record the outcome."""
