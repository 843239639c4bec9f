"""Status pages for people, based on the records, which work without JavaScript.

`site` handles requests, `showing` and `timeline` prepare data for the templates, `words` turns it
into text.
"""
