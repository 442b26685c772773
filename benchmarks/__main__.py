"""``python -m benchmarks``; a process that is started for a contestant imports this, and nothing more."""

if __name__ == "__main__":
    from benchmarks.driver import main

    main()
