"""``python -m prunus``."""

from prunus.cli import main

if __name__ == "__main__":
    main()
