"""The same network in other frameworks, measured against ours, each in a process of its own.

`registry` lists the frameworks, one small file each; `materials` writes what all of them share, the
same weights and images; `worker` is the process that one variant lives in, `remote` its handle
here; `scenario` times the variants of one setting against one another.
"""
