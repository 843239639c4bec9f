"""The status pages: what the records say, for people. They can be read without JavaScript.

`site` answers requests, `showing` and `timeline` prepare what the templates show, `words` says it.
"""
