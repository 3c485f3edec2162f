"""python -m askback."""

from askback.cli import main

if __name__ == "__main__":
    main()
