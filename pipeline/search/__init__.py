"""Search: every living row of a merchant is one Elasticsearch document, and so is every deleted one.

What this stage guarantees:

* A document never goes back: writes carry the event's version and Elasticsearch refuses an older one (`stale`), which
  counts as success. A deleted row stays as a tombstone document with its version, so that nothing older revives it.
* A turn is accepted when Elasticsearch has written it to the translog of the primary and its replicas.
* One bad document is rejected alone; trouble of the whole index or cluster blames no merchant.
* What a bulk wrote is asked to become visible at once, at the pace all workers keep together; if the asking process
  dies, Elasticsearch's own slow refresh makes it visible.
* Reading goes through a scope that belongs to one merchant.
"""
