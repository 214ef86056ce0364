"""Measuring the pipeline on real services, and the floors beside which its figures are read.

A bench makes a deployment of its own (everything it makes is called ``bench_…``), refuses to run beside other work,
because both would measure each other, and takes away what it made. What each figure is: docs/benchmarks.md.
"""
