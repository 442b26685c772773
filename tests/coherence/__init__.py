"""The coherence checker: many processes work on one database and one cache, and what they saw is judged afterwards.

    python -m tests.coherence --seconds 600 --workers 8 --seed 1

`models`, `pools` and `workload` say what is done, in `steps` of the unit of work, in `bulk` and `outside` past it;
`worker` does it and writes it down (`history`), and `faults` says what goes wrong meanwhile. `audit` has the database
itself record every version of every row, and `checker` compares the two.
"""
