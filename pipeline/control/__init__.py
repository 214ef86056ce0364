"""The control database: everything durable that is not an event. Losing Redis loses nothing of it.

One module per subject, one function per query; ``database`` connects and migrates. Back this database up:
parts can be rebuilt from S3, generations and set-aside events can not.
"""
