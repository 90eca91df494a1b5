"""`python -m smoothed`."""

from smoothed.cli.main import main

if __name__ == "__main__":
    main()
