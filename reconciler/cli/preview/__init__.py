"""Preview of a pull request on the environments repo: `groundcrew plan --base …`.

`revisions` reads both sides, `comparing` finds the differences, `resolving` the resulting packages,
`advisories` known vulnerabilities, and `markdown` formats the result. Nothing is recorded, and no
daemon is needed: information about the instances' bases comes from a file.
"""
