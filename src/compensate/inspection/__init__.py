"""Reading a saga: its values, its state, what ran when, how it ended, and whether today's code fits it.

Everything here works on a folded log, and nothing here changes one. The runtime reads sagas through it, and so do the
command line, notebooks and tests; it imports nothing of them.
"""
