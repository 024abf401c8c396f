"""Calls of the user's actions and undos: how they are made, and what came of each.

Nothing here knows who drives the saga. `outcomes` holds the table that says what an exception means, `invoke` calls
the user's functions, `threads` runs the plain ones.
"""
