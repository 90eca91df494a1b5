"""`python -m smoothed`, as `accelerate launch -m smoothed` needs it."""

from smoothed.cli.main import main

if __name__ == "__main__":
    main()
