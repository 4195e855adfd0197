"""`python -m runlane` is the command line."""

from runlane.cli import main

if __name__ == "__main__":
    main()
