"""Chaos: a consumer whose sink refuses gaps and counts everything, under faults drawn from a seed.

What it guarantees: it works on a deployment of its own, made under a name that is marked for it and taken away at the
end; the same seed strikes the same faults at the same moments; its verdict can fail. Lost is what Kafka acknowledged and
the sink never got; out of order is whatever came to the sink before its predecessor; duplicates are allowed, and counted.

``plan`` draws the schedule, ``faults`` and ``stores`` strike it, ``fleet`` keeps the processes, ``load`` appends numbered
records, ``sink`` is the consumer's handler, ``site`` the deployment, ``run`` the loop over all of them, ``verdict`` and
``plot`` what is told at the end.
"""
