"""Replay: a consumer's function run again over what is already published, or over a file or a list of events.

A replay stands beside the live way and touches nothing of it: no group's offsets, no lane, no set-aside event. It reads
each partition in order and gives every merchant's events to the function in that order, in turns as workers get them.
Its tokens count from 1, below every live one: a sink that refuses older tokens takes a replay for a worker that was
believed dead, and one that guards by version answers stale. So a replay fills gaps and rewrites nothing.

``turns`` runs the function and tells what became of each event, ``range`` says what to read of a topic, ``lines`` reads
and writes files of events, ``rehearsal`` is the same for a test.
"""
