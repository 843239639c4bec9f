"""The daemon's HTTP side: health, metrics, webhooks, the records as JSON, and the status pages.

`app` puts it together. `contract` and `operations` say what `/api/v1` is, `v1` answers it,
`documents` gives the stable documents that the command line prints too. `view` and `shelf` read the
store and the share, `people` tells who asks, `asking` queues what operators want, `streams` tells
what changes. `pages` is for people.
"""
