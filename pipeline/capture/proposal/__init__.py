"""A ``pipeline.toml`` proposed for a database that exists: read without a trace, and honest about what is a guess.

``inventory`` lists what is there, ``ownership`` finds whose each table's rows are, ``sensitive`` what must not leave the
database, by name and by looking at values, ``propose`` puts them together and drops what capture would refuse, and
``toml`` writes it down.
"""
