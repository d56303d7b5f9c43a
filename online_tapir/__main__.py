"""`python -m online_tapir` is `online-tapir`."""

from online_tapir.cli.app import main

if __name__ == "__main__":
    main()
