"""The coherence checker: many processes work on one database and one cache, and what they saw is judged afterwards.

    python -m tests.coherence --seconds 600 --workers 8 --seed 1

`models` and `workload` say what is done, `worker` does it and writes it down (`history`), `faults` what goes wrong
meanwhile; `audit` has the database itself record every version of every row, and `checker` compares the two.
"""
