"""HTTP server of the daemon: health, metrics, webhooks, the records as JSON, and status pages.

`app` assembles the application. `contract` and `operations` define `/api/v1`, `v1` handles it, and
`documents` creates the stable documents that the command line prints too. `view` and `shelf` read
the store and the share, `people` identifies users, `asking` queues operators' requests, `streams`
sends events about changes. `pages` are the pages for people.
"""
