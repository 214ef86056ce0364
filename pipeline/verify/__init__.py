"""Source = sink, proved row by row while traffic goes on.

A mark B is taken in the source, then a snapshot S that no transaction older than the mark can still change. Whatever
a sink holds at a version above B has changed since and is skipped; everything else must equal S in every captured
column. Checksums per merchant only shortlist: what differs is compared key by key and named.
"""
