"""The lanes measured alone: what an event costs from Kafka to its task, how soon it is there, and whom a bad neighbour hurts.

``costs`` drains backlogs of few and of many merchants, ``plain`` does the same with stock Celery; ``rounds`` watches healthy
traffic beside a merchant in trouble, by ``watching`` what a traffic process sent and a worker got; ``memory`` lets a bridge
fill up. ``run`` puts them in order, ``result`` makes the figures of them, ``plots`` the pictures.
"""
