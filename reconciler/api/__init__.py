"""The daemon's HTTP side: health, metrics, webhooks, and the records as JSON.

`documents` gives the stable documents that the command line prints too.
"""
