"""What a pull request on the environments repo would do: `groundcrew plan --base …`.

`revisions` reads both sides, `comparing` says what differs, `resolving` which packages that means,
`advisories` what is known against them, and `markdown` lays it out. Nothing is recorded, and no
daemon is needed: what it knows of the instances' bases it is given as a file.
"""
