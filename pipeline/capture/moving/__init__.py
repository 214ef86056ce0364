"""A merchant moves from one source to another: its rows are copied, and from one ev_id on the other source tells of it.

The relays leave out what a merchant that is away does there (``pipeline.capture.away``), so the copy is told by nobody,
nor is the clean-up that follows. Each step is noted in ``placements`` once it is done and changes nothing when it is
done again: a killed move goes on where it was. Until the merchant is at home in its new source everything can be taken
back.

``moves`` is the order of steps, ``ends`` the two sources, ``fitness`` what must hold before, ``copying`` the rows,
``revoking`` the way back; ``keeping`` restores what a source lost of all this in a failover.
"""
