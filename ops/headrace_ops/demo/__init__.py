"""The demo: one declaration from a stream of real events to audited predictions, told step by step.

``story`` tells it, ``live`` plays the last days of it, ``waiting`` knows when what is committed, ``pictures`` and ``summary``
show what came out. What may not live here: anything that a project needs in earnest.
"""
