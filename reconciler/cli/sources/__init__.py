"""Sources that commands read and send requests to: the records on this machine, or a server.

Both give the documents of the HTTP API, so that a command decides and prints with the same code
wherever it runs. Begin reading at `source`; `choice` says which of the two a command uses.
"""
